// The session, whatever the connections under it do: opens it, resumes it, keeps timelines exact and sends what waits.
//
// It knows nothing of the page. It emits:
//  status (state)  "out" · "connecting" · "online" · "waiting" · "replaced"
//  welcome (frame)  the server introduced itself
//  opened (frame, fresh)  session or resumed; fresh: a new session
//  ended (why)  the session is no more: log in again
//  records (conv, records, live)  these appeared at the end of a timeline
//  reset (conv)  its timeline began anew  removed (conv, reason)  no member any more
//  outbox (conv)  what waits for it changed  acked (entry, conv)
//  command (conv, text, result)  one that was under way when the page was loaded anew
//  notice (frame)  everything else that the server says
//
// The token of a resume is kept before the first frame after `resumed` is sent, because that frame makes the older one worthless.

import { delay } from "./backoff.js";
import { Connection, Lost, Refusal } from "./connection.js";
import { Emitter } from "./emitter.js";
import { Outbox, newCid } from "./outbox.js";
import { FILL_LIMIT, Timeline } from "./timeline.js";

const PATIENCE_S = 60; // what was too fast is asked again, if it need not wait longer
const LATER = new Set(["rate_limited", "busy", "storage_unavailable", "storage_full", "shutting_down", "indeterminate", "internal_error", "timeout"]);
const CURSOR_BYTES = 6_500; // a frame may have 8 KiB before there is a session
const found = (names) => names.find((name) => globalThis.navigator?.userAgent?.includes(name));
const AGENT = `chat web 1 (${found(["Firefox", "Edg", "OPR", "Chrome", "Safari"]) ?? "?"}, ${found(["Android", "iPhone", "Windows", "Mac", "Linux"]) ?? "?"})`; // in the list of sessions

export class Client extends Emitter {
	timelines = new Map();
	outbox = null;
	state = "out";
	user = null;
	session = null;
	welcome = null;
	waitingUntil = 0;
	#connection = null;
	#attempt = 0;
	trouble = null; // what the last resume was refused for, in words; the server has to mend it
	#refusal = null;
	#wake = null; // ends the wait for the next attempt
	#sending = false;
	#commands = new Map(); // cid → {text, channel, resolve, reject}
	#left = null; // the session before this one
	#release = null; // lets go of the lock that says that this session is alive in a tab

	constructor({ url, keeper, WebSocket = globalThis.WebSocket, locks = globalThis.navigator?.locks }) {
		super();
		Object.assign(this, { url, keeper, WebSocket, locks });
	}

	// ---- opening

	get remembered() {
		return this.keeper.session;
	}

	// Before there is a session: who is there, and how one gets in. Throws Lost.
	async introduce() {
		return (await this.#connect()).welcome;
	}

	// `request` is a register or login. Throws Refusal or Lost.
	async open(request, device) {
		await this.#connection?.opened.catch(() => {}); // it is said hello to by now
		const connection = this.#connection ?? (await this.#connect()).connection;
		const frame = await connection.request(request);
		this.#adoptSession(frame, device, true);
	}

	// Go on with the remembered session: now, whenever the connection is lost, and where another tab had gone on with it.
	async resume() {
		const kept = this.keeper.session;
		if (!kept) return this.state === "out" ? undefined : this.#lose("You were logged out in another tab.");
		this.#begin(kept.user, kept.session);
		this.#status("connecting");
		try {
			const { connection } = await this.#connect();
			const frame = await connection.request({ type: "resume", token: this.keeper.session.token, cursors: this.#cursors() });
			this.#adoptSession(frame, kept.device, false);
		} catch (error) {
			if (error instanceof Refusal && error.code === "unauthorized") this.#lose("Your session has ended. Please log in again.");
			else if (error instanceof Refusal) {
				this.#refusal = error; // a full disk, a ban: it may be another day
				this.#connection?.close();
			}
		}
	}

	// Try now rather than later; or look whether the connection is alive.
	nudge() {
		if (this.#wake) this.#wake();
		else this.#connection?.probe();
	}

	// ---- asking

	get online() {
		return this.state === "online";
	}

	request(frame) {
		return this.online ? this.#connection.request(frame) : Promise.reject(new Lost("not connected"));
	}

	// A text goes into the outbox, and from there when it can.
	say(conv, text, replyTo) {
		this.outbox.add(conv, text, replyTo);
		this.emit("outbox", conv);
		this.#send();
	}

	retry(cid) {
		const entry = this.outbox.retry(cid);
		if (entry) this.emit("outbox", entry.conv);
		this.#send();
	}

	discard(cid) {
		const entry = this.outbox.settle(cid);
		if (entry) this.emit("outbox", entry.conv);
	}

	// A command's result. It has a cid, so it is asked again after a lost connection, and done once; with `keep` after a reload too.
	command(text, conv, keep = false) {
		const command = { type: "command", cid: newCid(), text };
		if (conv?.startsWith("#")) command.channel = conv.slice(1);
		if (keep) this.keeper.keepCommand(this.session, { conv, command });
		return this.#run(command);
	}

	#run(command) {
		return new Promise((resolve, reject) => {
			this.#commands.set(command.cid, { command, resolve, reject });
			this.#ask(command.cid);
		});
	}

	async loadOlder(conv, limit = 100) {
		const timeline = this.timelines.get(conv);
		if (!timeline || timeline.complete) return 0;
		const before = timeline.first;
		return timeline.backward(await this.request({ type: "history", conv, before, limit }), before);
	}

	// Be ready for records of a conversation that one has just come into.
	follow(conv, epoch, head) {
		let timeline = this.timelines.get(conv);
		if (!timeline) this.timelines.set(conv, (timeline = new Timeline(conv, epoch, head)));
		else if (timeline.epoch !== epoch) timeline.reset(epoch, head);
		else timeline.raise(head);
		this.#fill(conv);
		return timeline;
	}

	forget(conv) {
		this.timelines.delete(conv);
	}

	// Another session of this account ends.
	endSession(session) {
		return this.request({ type: "logout", session });
	}

	async logout(everywhere = false) {
		const session = this.session;
		try {
			await this.request(everywhere ? { type: "logout", everywhere: true } : { type: "logout" });
		} finally {
			this.outbox.clear();
			this.#lose("", session);
		}
	}

	// ---- connections

	async #connect() {
		const before = this.#connection;
		this.#connection = null; // so that its end is nobody's news
		before?.close();
		let connection = null;
		let introduced;
		const welcome = new Promise((resolve) => (introduced = resolve));
		connection = new Connection(this.url, {
			WebSocket: this.WebSocket,
			notice: (frame, answer) => {
				if (frame.type === "welcome") {
					this.welcome = frame;
					this.emit("welcome", frame);
					introduced(frame);
				} else if (this.#connection === connection) this.#notice(frame, answer);
			},
			end: (closing) => {
				introduced(null);
				if (this.#connection === connection) this.#ended(closing);
			},
		});
		this.#connection = connection;
		await connection.opened;
		connection.send({ type: "hello", protocol: 1, client: AGENT });
		const frame = await welcome;
		if (!frame) throw new Lost("the connection was lost");
		return { connection, welcome: frame };
	}

	#ended(closing) {
		this.#connection = null;
		for (const timeline of this.timelines.values()) timeline.unasked();
		if (closing?.code === "unauthorized") return this.#lose("Your session has ended. Please log in again.");
		if (this.state === "out" || this.state === "replaced") return;
		this.trouble = this.#refusal?.message ?? null;
		this.#again(closing?.retry_after ?? this.#refusal?.retryAfter);
	}

	#again(retryAfter) {
		this.#refusal = null;
		const seconds = delay(this.#attempt++, retryAfter);
		this.waitingUntil = Date.now() + seconds * 1000;
		this.#status("waiting");
		const timer = setTimeout(() => this.#wake?.(), seconds * 1000);
		this.#wake = () => {
			clearTimeout(timer);
			this.#wake = null;
			this.resume();
		};
	}

	#lose(why, session = this.session) {
		this.keeper.forget(session);
		const connection = this.#connection;
		this.#connection = null;
		connection?.close();
		this.#wake = null;
		for (const { reject } of this.#commands.values()) reject(new Lost("the session has ended"));
		this.#commands.clear();
		this.#release?.();
		this.#left = session;
		this.session = null;
		this.#status("out");
		this.emit("ended", why);
	}

	#status(state) {
		this.state = state;
		this.emit("status", state);
	}

	#cursors() {
		const cursors = {};
		let bytes = 0;
		for (const { conv, epoch, next } of this.timelines.values()) {
			bytes += new TextEncoder().encode(conv).length + 60;
			if (bytes > CURSOR_BYTES) break; // the others are told in `heads`, and filled from the history
			cursors[conv] = [epoch, next];
		}
		return cursors;
	}

	// ---- sessions

	#begin(user, session) {
		if (this.user !== user) this.timelines.clear();
		if (this.session !== session || !this.outbox) {
			this.outbox = new Outbox(this.keeper.device, this.keeper.outboxKey(user, session));
			this.#hold(`chat.session.${session}`);
		}
		this.user = user;
		this.session = session;
	}

	#adoptSession(frame, device, fresh) {
		this.keeper.save({ user: frame.user, session: frame.session, token: frame.resume_token, device });
		this.#begin(frame.user, frame.session);
		this.#attempt = 0;
		this.trouble = null;
		const heads = Object.entries(frame.heads);
		if (fresh) for (const conv of [...this.timelines.keys()]) if (!(conv in frame.heads)) this.forget(conv);
		for (const [conv, [epoch, head]] of heads) this.follow(conv, epoch, head);
		this.#status("online");
		this.emit("opened", frame, fresh);
		for (const conv of this.timelines.keys()) this.#fill(conv);
		if (fresh) this.#adoptOutboxes();
		for (const cid of this.#commands.keys()) this.#ask(cid);
		for (const { conv, command } of this.keeper.commands(this.session)) if (!this.#commands.has(command.cid)) this.emit("command", conv, command.text, this.#run(command));
		this.#send();
	}

	// The unsent texts of sessions of this account that no tab has any more.
	async #adoptOutboxes() {
		const { user, session, outbox } = this;
		if (this.#left) outbox.adopt(this.keeper.outboxKey(user, this.#left)); // of the session that this page had before
		const held = (await this.locks?.query().catch(() => null))?.held;
		const living = new Set([session, ...(held ?? []).map((lock) => lock.name.replace(/^chat\.session\./, ""))]);
		if (held) for (const key of this.keeper.leftOutboxes(user, living)) outbox.adopt(key);
		for (const conv of new Set(outbox.entries.map((entry) => entry.conv))) this.emit("outbox", conv);
		this.#send();
	}

	#hold(name) {
		this.#release?.();
		const released = new Promise((resolve) => (this.#release = resolve));
		this.locks?.request(name, () => released).catch(() => {});
	}

	// ---- what comes

	#notice(frame, answer) {
		if (frame.seq !== undefined && frame.conv && frame.epoch && !answer) return this.#record(frame);
		switch (frame.type) {
			case "heads":
				for (const [conv, [epoch, head]] of Object.entries(frame.heads)) {
					const known = this.timelines.get(conv);
					this.follow(conv, epoch, head);
					if (known && known.epoch !== epoch) this.emit("reset", conv);
				}
				this.emit("notice", frame);
				break;
			case "gap":
				this.timelines.get(frame.conv)?.raise(frame.before - 1);
				break;
			case "history_reset":
				this.timelines.get(frame.conv)?.reset(frame.epoch, frame.last_seq);
				this.emit("reset", frame.conv);
				break;
			case "removed":
				this.forget(frame.conv);
				this.emit("removed", frame.conv, frame.reason);
				break;
			case "replaced":
				this.#status("replaced");
				this.#connection.close();
				break;
			default:
				if (!answer) this.emit("notice", frame);
		}
	}

	#record(record) {
		let timeline = this.timelines.get(record.conv);
		if (!timeline) this.timelines.set(record.conv, (timeline = new Timeline(record.conv, record.epoch, record.seq - 1)));
		if (timeline.epoch !== record.epoch) {
			timeline.reset(record.epoch, record.seq - 1);
			this.emit("reset", record.conv);
		}
		if (record.cid && this.outbox.settle(record.cid)) this.emit("outbox", record.conv); // stored by an attempt whose ack was lost
		const appeared = timeline.receive(record);
		if (appeared.length) this.emit("records", record.conv, appeared, this.online);
		this.#fill(record.conv);
	}

	async #fill(conv) {
		const timeline = this.timelines.get(conv);
		if (!timeline || !this.online) return;
		const generation = timeline.generation;
		const asked = timeline.wants();
		if (timeline.generation !== generation) this.emit("reset", conv);
		if (!asked) return;
		try {
			const page = await this.request({ type: "history", conv, after: asked.after, limit: FILL_LIMIT });
			const appeared = timeline.forward(page, asked);
			if (timeline.generation !== generation) this.emit("reset", conv);
			if (appeared.length && this.timelines.get(conv) === timeline) this.emit("records", conv, appeared, true);
		} catch (error) {
			if (error instanceof Lost) return; // the next resume sees to it
			await later(error.retryAfter ?? 2);
			timeline.unasked();
		}
		this.#fill(conv);
	}

	// ---- what goes

	// One at a time, so that a refusal for now lets no later text of its conversation overtake.
	async #send() {
		if (this.#sending) return;
		this.#sending = true;
		try {
			for (let entry; this.online && (entry = this.outbox.head); ) await this.#sendOne(entry);
		} finally {
			this.#sending = false;
		}
	}

	async #sendOne(entry) {
		const { cid, conv, text, reply_to } = entry;
		const where = conv.startsWith("#") ? { channel: conv.slice(1) } : { to: conv.slice(1) };
		try {
			const answer = await this.request({ type: "send", cid, text, ...where, ...(reply_to ? { reply_to } : {}) });
			if (answer.type === "ack") {
				this.outbox.settle(cid);
				this.emit("acked", entry, answer.conv);
				this.#record({ type: "message", conv: answer.conv, epoch: answer.epoch, seq: answer.seq, ts: answer.ts, from: this.user, text, cid, ...(reply_to ? { reply_to } : {}) });
			} else this.outbox.settle(cid);
		} catch (error) {
			if (!(error instanceof Refusal)) {
				if (this.online) this.#connection?.close();
				return;
			}
			if (LATER.has(error.code)) this.#holdBack(conv, error);
			else this.outbox.fail(cid, error.message);
		}
		this.emit("outbox", conv);
	}

	#holdBack(conv, { retryAfter, message }) {
		const seconds = retryAfter ?? 2;
		const { outbox } = this;
		outbox.hold(conv, seconds, message);
		later(seconds).then(() => {
			outbox.release(conv);
			this.emit("outbox", conv);
			if (outbox === this.outbox) this.#send();
		});
	}

	async #ask(cid) {
		const waiting = this.#commands.get(cid);
		if (!this.online || !waiting) return;
		try {
			const answer = await this.request(waiting.command);
			this.#answered(cid).resolve(answer);
		} catch (error) {
			if (!(error instanceof Refusal)) return; // asked again after the resume
			if (error.code === "rate_limited" && error.retryAfter <= PATIENCE_S) return this.#askLater(cid, error);
			this.#answered(cid).reject(error);
		}
	}

	// Too fast: it waits as long as the server says, and `held` tells.
	#askLater(cid, { retryAfter, message }) {
		const waiting = this.#commands.get(cid);
		waiting.hold = { until: Date.now() + retryAfter * 1000, why: message, name: waiting.command.text.trim().split(/\s/)[0] };
		this.emit("outbox", null);
		later(retryAfter).then(() => {
			waiting.hold = null;
			this.emit("outbox", null);
			this.#ask(cid);
		});
	}

	// A command that waits: {until, why, name}.
	get held() {
		for (const { hold } of this.#commands.values()) if (hold) return hold;
		return null;
	}

	#answered(cid) {
		const waiting = this.#commands.get(cid);
		this.#commands.delete(cid);
		this.keeper.dropCommand(cid);
		return waiting;
	}
}

function later(seconds) {
	return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}
