// What browsers have and older versions of node do not have as a global.

import { webcrypto } from "node:crypto";

globalThis.crypto ??= webcrypto;
