// How it stands with the connection: nothing while all is well, one quiet line otherwise. And short words over everything.

import { h } from "./dom.js";
import { sentence } from "./markup.js";

const PATIENCE_MS = 1500; // a connection that is back sooner was not worth a word
const TOAST_MS = 6000;

export class Status {
	constructor(client) {
		this.client = client;
		this.text = h("span");
		this.button = h("button", { onclick: () => this.#act() });
		this.element = h("div.status", { role: "status", hidden: true }, h("span.pulse", { "aria-hidden": "true" }), this.text, this.button);
		client.on("status", () => this.#changed());
		setInterval(() => !this.element.hidden && this.#draw(), 1000);
	}

	#changed() {
		const { state, trouble } = this.client;
		clearTimeout(this.timer);
		if (state === "online" || state === "out") this.element.hidden = true;
		else if (state === "replaced" || trouble) this.#show();
		else if (this.element.hidden) this.timer = setTimeout(() => this.#show(), PATIENCE_MS);
		else this.#draw();
	}

	#show() {
		this.element.hidden = false;
		this.#draw();
	}

	#draw() {
		const { state, trouble, waitingUntil } = this.client;
		const seconds = Math.max(0, Math.ceil((waitingUntil - Date.now()) / 1000));
		const text = {
			connecting: "Connecting…",
			waiting: `${trouble ? sentence(trouble) : "No connection."} What you write is kept and sent later. Next try in ${seconds} s.`,
			replaced: "This session went on in another tab.",
		}[state];
		if (this.text.textContent !== text) this.text.textContent = text ?? "";
		const label = { waiting: "Try now", replaced: "Use it here" }[state] ?? "";
		this.button.textContent = label;
		this.button.hidden = !label;
	}

	#act() {
		if (this.client.state === "replaced") this.client.resume();
		else this.client.nudge();
	}
}

export class Toasts {
	constructor(store) {
		this.element = h("div.toasts", { role: "status", "aria-live": "polite" });
		store.on("toast", ({ text, level }) => {
			const toast = h("div", { class: `toast ${level === "warning" ? "warning" : ""}` }, text);
			this.element.append(toast);
			setTimeout(() => toast.remove(), TOAST_MS);
		});
	}
}
