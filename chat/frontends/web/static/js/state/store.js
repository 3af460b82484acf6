// What the page knows, gathered from the client: conversations with their unread counts, people, members, questions, results.
//
// Views read it and listen for "change"; they change it through its methods alone. Nothing here touches the DOM.

import { Emitter } from "../protocol/emitter.js";

const HELD_RECORDS = 4000; // of one conversation that nobody looks at
const COUNTED = 100; // unread are counted up to this
const NOTES_KEPT = 50;
const RETRY_MS = 3000;
const RECENT_MS = 60_000; // who wrote in private so lately is online: the server tells when that ends
const TOLD_MS = 60_000; // how long it is told how a question ended
const ENDS = {
	__proto__: null,
	answered: "it was answered",
	timeout: "its time is up",
	cancelled: "it was taken back",
	asker_gone: "who asked is gone",
	channel_gone: "the channel is gone",
	stopping: "the server stops",
};

export class Store extends Emitter {
	conversations = new Map(); // conv → Conversation
	people = new Map(); // name → {color, online: undefined where nobody told}
	current = null;
	ignored = new Set(); // names: what they say in channels is folded
	questions = new Map(); // id → question, with `until`
	toast = null;
	#notes = 0;
	#asking = new Set(); // channels whose members are about to be asked for
	#untold = new Set(); // conversations whose read mark the server is still to hear

	constructor(client, { looking = () => true } = {}) {
		super();
		this.client = client;
		this.looking = looking; // whether somebody looks at the page now
		this.marks = {};
		client.on("opened", (frame, fresh) => this.#opened(frame, fresh));
		client.on("records", (conv, records, live) => this.#records(conv, records, live));
		client.on("reset", (conv) => this.#changed(conv));
		client.on("removed", (conv, reason) => this.#removed(conv, reason));
		client.on("outbox", (conv) => this.#waits(conv));
		client.on("acked", (entry, conv) => this.#renamed(entry.conv, conv));
		client.on("command", (conv, line, coming) => this.#awaited(conv, line, coming));
		client.on("notice", (frame) => this.#notice(frame));
		client.on("status", () => this.#changed());
		client.on("welcome", () => this.#changed());
		client.on("ended", () => this.#cleared());
	}

	// ---- reading

	get me() {
		return this.client.user;
	}

	get here() {
		return this.conversations.get(this.current) ?? null;
	}

	get channels() {
		return [...this.conversations.values()].filter((each) => each.conv[0] === "#").sort(byName);
	}

	get privates() {
		return [...this.conversations.values()].filter((each) => each.conv[0] === "@").sort((a, b) => b.active - a.active || byName(a, b));
	}

	get unread() {
		let total = 0;
		for (const { conv, unread, mentions } of this.conversations.values()) total += conv[0] === "@" ? unread : mentions;
		return total;
	}

	prefix(conv = this.current) {
		return this.conversations.get(conv)?.prefix ?? this.client.welcome?.prefix ?? "//";
	}

	timeline(conv) {
		return this.client.timelines.get(conv) ?? null;
	}

	person(name) {
		return this.people.get(name) ?? { color: null };
	}

	mentions(text) {
		return mentioned(text, this.me);
	}

	// Said in a channel by somebody whom one ignores.
	folds(conv, record) {
		return record.type === "message" && conv[0] === "#" && this.ignored.has(record.from);
	}

	// ---- acting

	async show(conv) {
		if (!conv || (conv === this.current && this.here)) return;
		this.leaveOff();
		this.#conversation(conv);
		this.current = conv;
		const here = this.here;
		here.line = here.unread ? (this.marks[conv]?.[1] ?? null) : null; // where the "new" line stands
		this.emit("shown", conv);
		this.#changed(conv);
		this.read();
		if (conv[0] === "#") this.loadMembers(conv);
		this.loadCommands(conv);
		await this.loadOlder(conv, true);
	}

	leaveOff() {
		if (this.here) this.timeline(this.current)?.trim(HELD_RECORDS);
		if (this.here) this.here.line = null;
	}

	// Everything of the shown conversation has been seen.
	read() {
		const here = this.here;
		const timeline = this.timeline(this.current);
		if (!here || !timeline || !this.looking()) return;
		if (here.unread || here.mentions || (this.marks[here.conv]?.[1] ?? 0) < timeline.next - 1) {
			here.unread = here.mentions = 0;
			this.#mark(here.conv, timeline.epoch, timeline.next - 1);
			this.#changed();
		}
	}

	// A page of older records; at first only when there is not enough to look at.
	async loadOlder(conv, first = false) {
		const here = this.conversations.get(conv);
		const timeline = this.timeline(conv);
		if (!here || !timeline || here.loading || timeline.complete || Date.now() < here.loadAfter || (first && timeline.records.length >= 50)) return 0;
		here.loading = true;
		try {
			return await this.client.loadOlder(conv);
		} catch {
			here.loadAfter = Date.now() + RETRY_MS; // then tried again, at the next look
			return 0;
		} finally {
			here.loading = false;
			this.#changed(conv);
		}
	}

	loadMembers(conv) {
		return this.#load("members", conv, (here, { data, total }) => {
			here.members = data;
			here.unlisted = total ? total - data.length : 0;
			for (const { user, color, online } of data) this.people.set(user, { color, online });
			const mine = data.find((member) => member.user === this.me);
			if (mine) here.role = mine.role;
		});
	}

	loadCommands(conv) {
		return this.#load("commands", conv, (here, { data }) => (here.commands = data));
	}

	async #load(type, conv, take) {
		try {
			const answer = await this.client.request({ type, ...(conv[0] === "#" ? { channel: conv.slice(1) } : {}) });
			const here = this.conversations.get(conv);
			if (here) take(here, answer);
			this.#changed(conv);
		} catch {
			/* no connection, or no member any more: told elsewhere, and asked for again with the next look */
		}
	}

	async join(channel, password) {
		const ok = await this.client.request({ type: "join", channel, ...(password ? { password } : {}) });
		this.#joined(ok.conv, ok);
		await this.show(ok.conv);
	}

	async create(channel, password) {
		const line = password ? `create-channel ${quoted(channel)} ${quoted(password)}` : `create-channel ${quoted(channel)}`;
		const result = await this.client.command(line, null);
		await this.#went("create-channel", result);
	}

	async leave(conv) {
		await this.client.request({ type: "leave", channel: conv.slice(1) });
		this.#removed(conv);
	}

	say(text, replyTo) {
		this.client.say(this.current, text, replyTo);
	}

	// Run a command here; what comes of it is shown in its place.
	command(line) {
		const conv = this.current;
		return this.#awaited(conv, line, this.client.command(line, conv, this.shownCommand(line) === line)); // no secrets are kept
	}

	async #awaited(conv, line, coming) {
		const note = this.#note(conv, { kind: "command", title: this.shownCommand(line), text: "", pending: true });
		const name = line.trim().split(/\s/)[0].toLowerCase().replaceAll("_", "-");
		try {
			const result = await coming;
			Object.assign(note, { text: result.text, pending: false });
			await this.#went(name, result);
		} catch (error) {
			Object.assign(note, { text: error.message, failed: true, pending: false });
		}
		this.#changed(conv);
	}

	// A command as others may see it over one's shoulder: without what the server calls secret.
	shownCommand(line) {
		const [name, ...words] = line.trim().split(/\s+/);
		const spec = this.here?.commands?.find((each) => each.name === name.toLowerCase() || each.aliases?.includes(name.toLowerCase()));
		const first = spec?.arguments.findIndex((argument) => argument.secret) ?? -1;
		return [name, ...words.map((word, n) => (first >= 0 && n >= first ? "••••••" : word))].join(" ");
	}

	dismiss(conv, note) {
		const here = this.conversations.get(conv);
		if (here) here.notes = here.notes.filter((each) => each !== note);
		this.#changed(conv);
	}

	async answer(id, text) {
		const question = this.questions.get(id);
		question.given = text;
		try {
			await this.client.request({ type: "answer", question: id, text }); // whether it is over then, `question_closed` says
		} catch (error) {
			question.given = null;
			if (question.outcome) question.outcome = ENDS.answered; // by somebody else
			this.#changed();
			throw error;
		}
	}

	// A question ended, or how it did is put away. One's own answer is told until it is over for everybody.
	over(id, reason) {
		const question = this.questions.get(id);
		if (!question) return;
		if (question.outcome) this.questions.delete(id);
		else if (reason === "answered" && question.given) question.outcome = `answered: ${question.given}`;
		else Object.assign(question, { outcome: ENDS[reason] ?? "it is over", until: Date.now() + TOLD_MS });
		this.#changed();
	}

	// Somebody is here who was not in the list: who came at registration left no record of it. Of a long list there is only a part.
	#met(conv, name) {
		const { members, unlisted } = this.conversations.get(conv) ?? {};
		if (!members || unlisted || name === "server" || members.some((each) => each.user === name) || this.#asking.has(conv)) return;
		this.#asking.add(conv);
		setTimeout(() => {
			this.#asking.delete(conv);
			if (this.current === conv) this.loadMembers(conv);
		}, 1000);
	}

	// ---- what comes

	#opened(frame, fresh) {
		if (fresh && this.client.welcome.motd) this.tell(this.client.welcome.motd);
		this.questions.clear(); // what is still asked is shown again
		if (fresh || !Object.keys(this.marks).length) this.marks = this.client.keeper.readMarks(frame.user);
		this.ignored = new Set(frame.ignored ?? []);
		const channels = new Map(frame.channels.map((each) => [`#${each.channel}`, each]));
		for (const conv of [...this.conversations.keys()]) if (conv[0] === "#" && !channels.has(conv)) this.conversations.delete(conv);
		for (const [conv, { topic, role, prefix }] of channels) Object.assign(this.#conversation(conv), { topic, role, prefix });
		for (const [conv, [epoch, head]] of Object.entries(frame.heads)) {
			this.#conversation(conv);
			// Here, or wherever else one is logged in: what lies further. Of a channel that nobody of us has read nothing is unread.
			const known = this.marks[conv]?.[0] === epoch ? this.marks[conv][1] : conv[0] === "@" ? 0 : null;
			const told = frame.read?.[conv] ?? null;
			const seen = known === null && told === null ? head : Math.min(head, Math.max(known ?? 0, told ?? 0));
			this.#mark(conv, epoch, seen, false);
			if (seen < head) this.#count(conv, epoch, head);
		}
		const outbox = this.client.outbox;
		for (const { conv } of outbox.entries) this.#conversation(conv);
		for (const [name, { color }] of this.people) this.people.set(name, { color }); // who is online is told anew
		this.#online(this.me, true);
		if (this.current && !this.conversations.has(this.current)) this.current = null;
		if (this.here) {
			if (this.current[0] === "#") this.loadMembers(this.current);
			this.loadCommands(this.current);
			this.loadOlder(this.current, true);
		}
		this.#changed();
	}

	// How many came while nobody was here. What is held tells it; else a page of the history does.
	async #count(conv, epoch, head) {
		const seen = this.marks[conv]?.[1] ?? 0;
		const timeline = this.timeline(conv);
		if (head <= seen || !timeline) return;
		const here = this.#conversation(conv);
		let records = timeline.records;
		if (timeline.first > seen + 1) {
			try {
				records = (await this.client.request({ type: "history", conv, after: Math.max(seen, head - 2 * COUNTED), limit: 2 * COUNTED })).messages;
			} catch {
				return;
			}
		}
		here.unread = here.mentions = 0;
		for (const record of records) if (record.seq > seen && record.seq <= head) this.#tally(here, record);
		if (!here.unread) this.#mark(conv, epoch, head);
		if (here.unread && conv === this.current) here.line ??= seen;
		this.#changed();
		this.read();
	}

	#tally(here, record) {
		if (record.type !== "message" || record.deleted || record.from === this.me || this.folds(here.conv, record)) return;
		here.unread += 1;
		if (here.conv[0] === "@" || this.mentions(record.text)) here.mentions += 1;
	}

	#records(conv, records, live) {
		const here = this.#conversation(conv);
		const timeline = this.timeline(conv);
		const looked = conv === this.current && this.looking();
		for (const record of records) {
			this.#learn(here, record);
			if (record.type === "deleted") timeline?.erase(record.target);
			if (record.type === "message") {
				here.active = Math.max(here.active, record.ts);
				if (live) this.#met(conv, record.from);
				if (conv[0] === "@" && Date.now() - record.ts < RECENT_MS) this.#online(record.from, true);
			}
			if (!looked && record.seq > (this.marks[conv]?.[1] ?? 0)) {
				if (record.type === "message" && record.from !== this.me && here.line === null && conv === this.current) here.line = record.seq - 1;
				this.#tally(here, record);
			}
			if (record.type === "message" && record.from === this.me) here.line = null;
		}
		const last = records.at(-1);
		if (live && records.some(({ type, user }) => type === "joined" && user === this.me)) this.#came(conv);
		if (live && last.user === this.me && (last.type === "left" || last.type === "banned")) return this.#removed(conv, last.reason); // by another session, or somebody else
		if (conv !== this.current) timeline?.trim(HELD_RECORDS);
		if (live) this.emit("live", conv, records);
		this.#changed(conv);
		this.read();
	}

	#learn(here, record) {
		const mine = record.user === this.me;
		if (record.type === "topic") here.topic = record.text;
		else if (record.type === "role") {
			if (mine) here.role = record.role;
			const member = here.members?.find((each) => each.user === record.user);
			if (member) member.role = record.role;
		} else if (record.type === "joined" || record.type === "left" || record.type === "banned") {
			if (here.members) here.members = here.members.filter((each) => each.user !== record.user);
			if (record.type === "joined") {
				const person = this.#online(record.user, true);
				here.members?.push({ user: record.user, role: "member", ...person });
			}
		}
	}

	#notice(frame) {
		switch (frame.type) {
			case "presence":
				for (const [name, online] of Object.entries(frame.users)) {
					if (online && this.current) this.#met(this.current, name);
					this.#online(name, online);
					for (const { members } of this.conversations.values()) {
						const member = members?.find((each) => each.user === name);
						if (member) member.online = online;
					}
				}
				break;
			case "heads":
				for (const conv of Object.keys(frame.heads)) {
					if (conv[0] === "#" && !this.conversations.has(conv)) this.#came(conv);
					this.#conversation(conv);
				}
				break;
			case "read":
				this.#readElsewhere(frame.conv, frame.seq);
				break;
			case "ignored":
				this.ignored = new Set(frame.users);
				break;
			case "question":
				this.questions.set(frame.question, { ...frame, until: Date.now() + frame.expires_in * 1000 });
				break;
			case "question_closed":
				this.over(frame.question, frame.reason);
				break;
			case "commands_changed":
				if (this.current && (!frame.conv || frame.conv === this.current)) setTimeout(() => this.current && this.loadCommands(this.current), 3000 * Math.random());
				break;
			case "channel":
				this.#conversation(frame.conv).prefix = frame.prefix;
				break;
			case "notice":
				this.tell(frame.text, frame.level);
				break;
			case "error":
				this.tell(frame.message, "warning");
				break;
		}
		this.#changed();
	}

	// A word for the person, over everything.
	tell(text, level = "info") {
		this.toast = { text, level };
		this.emit("toast", this.toast);
	}

	// A command changed where one is, or how one looks.
	async #went(name, { data }) {
		if (name === "color" || name === "colour") return this.loadMembers(this.current);
		const conv = data?.channel ? `#${data.channel}` : null;
		if (!conv) return;
		if (name === "leave-channel" || name === "delete-channel") return this.#removed(conv);
		if (name !== "create-channel" && name !== "join-channel") return;
		await this.#came(conv);
		await this.show(conv);
	}

	// One has come in by a command, or by another session: joining again tells topic and role, and where it stands.
	async #came(conv) {
		const ok = await this.client.request({ type: "join", channel: conv.slice(1) }).catch(() => null);
		if (ok) this.#joined(conv, ok);
		this.#changed(conv);
	}

	#joined(conv, { epoch, last_seq, topic, role }) {
		Object.assign(this.#conversation(conv), { topic: topic ?? "", role: role ?? "member" });
		this.client.follow(conv, epoch, last_seq ?? 0);
		if (this.marks[conv]?.[0] !== epoch) this.#mark(conv, epoch, last_seq ?? 0, false);
	}

	#removed(conv, reason) {
		this.client.forget(conv);
		if (!this.conversations.delete(conv)) return;
		delete this.marks[conv];
		if (reason) this.tell(`You are no longer in ${conv}: ${reason}`, "warning");
		if (this.current === conv) {
			this.current = null;
			const next = this.channels[0] ?? this.privates[0];
			if (next) this.show(next.conv);
			else this.emit("shown", null);
		}
		this.#changed();
	}

	// The server's spelling of a name that was typed.
	#renamed(from, to) {
		if (from === to) return;
		const ghost = this.conversations.get(from);
		if (ghost && !this.timeline(from)) this.conversations.delete(from);
		this.#conversation(to);
		if (this.current === from) this.show(to);
	}

	#waits(conv) {
		const { kept } = this.client.outbox;
		if (!kept && !this.warned) {
			this.warned = true;
			this.tell("This browser keeps nothing here: what is not sent yet is lost with a reload.", "warning");
		}
		this.#changed(conv);
	}

	#cleared() {
		this.conversations.clear();
		this.questions.clear();
		this.ignored.clear();
		this.people.clear();
		this.marks = {};
		this.current = null;
		this.#changed();
	}

	// ---- private

	#conversation(conv) {
		let found = this.conversations.get(conv);
		if (!found) {
			found = { conv, topic: "", role: "member", unread: 0, mentions: 0, active: 0, line: null, draft: "", notes: [], members: null, unlisted: 0, commands: null, loading: false, loadAfter: 0 };
			this.conversations.set(conv, found);
		}
		return found;
	}

	#online(name, online) {
		const person = { ...this.person(name), online };
		this.people.set(name, person);
		return person;
	}

	#note(conv, note) {
		const here = this.#conversation(conv);
		const placed = { ...note, id: ++this.#notes, after: (this.timeline(conv)?.next ?? 1) - 1, ts: Date.now() };
		here.notes = [...here.notes.slice(1 - NOTES_KEPT), placed];
		this.#changed(conv);
		return placed;
	}

	// Another session of this account has read on.
	#readElsewhere(conv, seq) {
		const here = this.conversations.get(conv);
		const timeline = this.timeline(conv);
		if (!here || !timeline || seq <= (this.marks[conv]?.[1] ?? 0)) return;
		this.#mark(conv, timeline.epoch, seq, false);
		here.unread = here.mentions = 0;
		for (const record of timeline.records) if (record.seq > seq) this.#tally(here, record);
	}

	#mark(conv, epoch, seq, tell = true) {
		this.marks[conv] = [epoch, seq];
		this.client.keeper.saveReadMarks(this.me, this.marks);
		if (!tell || !seq) return;
		if (!this.#untold.size) setTimeout(() => this.#tellMarks(), 1500);
		this.#untold.add(conv);
	}

	#tellMarks() {
		for (const conv of this.#untold) {
			const seq = this.marks[conv]?.[1];
			if (seq) this.client.request({ type: "read", conv, seq }).catch(() => {});
		}
		this.#untold.clear();
	}

	#changed(conv = null) {
		this.emit("change", conv);
	}
}

export function mentioned(text, name) {
	if (!name) return false;
	const folded = text.toLocaleLowerCase();
	const wanted = `@${name.toLocaleLowerCase()}`;
	for (let at = folded.indexOf(wanted); at >= 0; at = folded.indexOf(wanted, at + 1)) {
		const after = folded.slice(at + wanted.length);
		if (!/[\p{L}\p{N}_]$/u.test(folded.slice(0, at)) && !/^[-.]?[\p{L}\p{N}_]/u.test(after)) return true;
	}
	return false;
}

function quoted(word) {
	return `"${word.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}

function byName(a, b) {
	return a.conv.localeCompare(b.conv);
}
