// Texts that the server has not acknowledged yet, in the order in which they were written. They are in the storage before they are
// sent and leave it at the ack, so that a reload, a crash or a lost connection loses none; the cid makes sending again safe.
//
// One that was refused for good stays, marked, until its author tries again (with a new cid: it is another attempt) or drops it.

export function newCid() {
	const bytes = crypto.getRandomValues(new Uint8Array(9));
	const random = btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
	return `${Date.now().toString(36)}-${random}`; // the time first: the server's index likes them in order
}

export class Outbox {
	constructor(storage, key) {
		this.storage = storage;
		this.key = key;
		this.entries = load(storage, key);
		this.kept = true; // whether the last write came through
		this.holds = new Map(); // conv → {until, why}: refused for now, in slow mode for instance; another conversation does not wait for it
	}

	// The next to send: in order, past those that were refused, and those of conversations that have to wait.
	get head() {
		return this.entries.find((entry) => !entry.failed && !this.held(entry.conv)) ?? null;
	}

	hold(conv, seconds, why) {
		this.holds.set(conv, { until: Date.now() + seconds * 1000, why });
	}

	release(conv) {
		this.holds.delete(conv);
	}

	// What a conversation has to wait for, and until when.
	held(conv) {
		return this.holds.get(conv) ?? null;
	}

	of(conv) {
		return this.entries.filter((entry) => entry.conv === conv);
	}

	add(conv, text, replyTo = null) {
		const entry = { cid: newCid(), conv, text, ts: Date.now() };
		if (replyTo) entry.reply_to = replyTo;
		this.entries.push(entry);
		this.#save();
		return entry;
	}

	// It is stored. Returns its entry, or null when it is not ours.
	settle(cid) {
		const entry = this.entries.find((each) => each.cid === cid) ?? null;
		if (entry) {
			this.entries = this.entries.filter((each) => each !== entry);
			this.#save();
		}
		return entry;
	}

	fail(cid, why) {
		const entry = this.entries.find((each) => each.cid === cid);
		if (!entry) return;
		entry.failed = why;
		this.#save();
	}

	retry(cid) {
		const entry = this.settle(cid);
		return entry && this.add(entry.conv, entry.text, entry.reply_to);
	}

	// Take along what an ended session of the same account left. In the order of time; a cid that is there already once.
	adopt(key) {
		if (key === this.key) return;
		const known = new Set(this.entries.map((entry) => entry.cid));
		this.entries.unshift(...load(this.storage, key).filter((entry) => !known.has(entry.cid)));
		this.entries.sort((a, b) => a.ts - b.ts);
		this.#save();
		if (this.kept) this.storage.removeItem(key);
	}

	clear() {
		this.entries = [];
		this.#save();
	}

	#save() {
		try {
			if (this.entries.length) this.storage.setItem(this.key, JSON.stringify(this.entries));
			else this.storage.removeItem(this.key);
			this.kept = true;
		} catch {
			this.kept = false; // full or forbidden: it still works, until a reload
		}
	}
}

function load(storage, key) {
	try {
		const found = JSON.parse(storage.getItem(key) ?? "[]");
		return Array.isArray(found) ? found.filter((each) => each && typeof each.cid === "string" && typeof each.text === "string") : [];
	} catch {
		return [];
	}
}
