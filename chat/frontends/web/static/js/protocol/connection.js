// One WebSocket: frames out and in, answers to their questions by id, and the notice that it is dead although nobody said so.
//
// It never reconnects: `client.js` makes a new one. A request ends in exactly one way: its answer, a Refusal (the server said no) or
// Lost (nobody knows: what is to survive is sent again with its cid).

export const SUBPROTOCOL = "chat.v1";
const SILENCE_MS = 45_000; // then we ask whether it is still there; the server speaks every 30 s to who is silent
const PROBE_MS = 8_000;

export class Refusal extends Error {
	constructor(frame) {
		super(frame.message);
		this.code = frame.code;
		this.retryAfter = frame.retry_after ?? null;
	}
}

export class Lost extends Error {}

export class Connection {
	#socket;
	#ids = 0;
	#waiting = new Map();
	#watchdog = null;
	#ended = false;

	// `notice(frame)` gets what is no answer; `end(closing)` is called once, with the server's last word or null.
	constructor(url, { notice, end, WebSocket = globalThis.WebSocket }) {
		this.notice = notice;
		this.end = end;
		this.closing = null;
		this.opened = new Promise((resolve, reject) => {
			this.#socket = new WebSocket(url, SUBPROTOCOL);
			this.#socket.onopen = () => resolve();
			this.#socket.onclose = () => {
				reject(new Lost("no connection"));
				this.#finish();
			};
			this.#socket.onmessage = (event) => this.#receive(event.data);
		});
		this.opened.catch(() => {});
		this.#watch(PROBE_MS * 2); // for the handshake
	}

	// For `hello` and `pong`, which have no answer by id.
	send(frame) {
		if (this.#ended || this.#socket.readyState !== 1) throw new Lost("no connection");
		this.#socket.send(JSON.stringify(frame));
	}

	request(frame) {
		const id = ++this.#ids;
		return new Promise((resolve, reject) => {
			this.#waiting.set(id, { resolve, reject });
			try {
				this.send({ ...frame, id });
			} catch (error) {
				this.#waiting.delete(id);
				reject(error);
			}
		});
	}

	// Is it still there? If nothing comes soon, it is cut. For when the laptop wakes or the network changes.
	probe() {
		if (this.#ended || this.#socket.readyState !== 1) return;
		try {
			this.send({ type: "ping", id: `p${++this.#ids}` });
		} catch {
			return;
		}
		this.#watch(PROBE_MS, true);
	}

	close() {
		this.#socket.close(1000);
		this.#finish(); // not waiting for a peer that may not be there
	}

	#receive(data) {
		this.#watch(SILENCE_MS);
		let frame;
		try {
			frame = JSON.parse(data);
		} catch {
			return;
		}
		if (frame.type === "ping") {
			this.send({ type: "pong", id: frame.id });
		} else if (frame.type === "closing") {
			this.closing = frame;
		} else if (frame.id !== undefined && this.#waiting.has(frame.id)) {
			const { resolve, reject } = this.#waiting.get(frame.id);
			this.#waiting.delete(frame.id);
			if (frame.type === "error") reject(new Refusal(frame));
			else {
				this.notice(frame, true); // in its place in the order: what follows may depend on it
				resolve(frame);
			}
		} else {
			this.notice(frame, false);
		}
	}

	#watch(ms, probed = ms !== SILENCE_MS) {
		clearTimeout(this.#watchdog);
		if (this.#ended) return;
		this.#watchdog = setTimeout(() => (probed ? this.close() : this.probe()), ms);
		this.#watchdog.unref?.();
	}

	#finish() {
		if (this.#ended) return;
		this.#ended = true;
		clearTimeout(this.#watchdog);
		for (const { reject } of this.#waiting.values()) reject(new Lost("the connection was lost"));
		this.#waiting.clear();
		this.end(this.closing);
	}
}
