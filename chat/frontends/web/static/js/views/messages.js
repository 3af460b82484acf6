// The conversation in the middle: rows by sender and day, a bounded part of them in the DOM, with scrolling back.
//
// The rows in the DOM are a window of the timeline's records, at most ROWS. `until` is the index behind the last one shown, or Infinity
// while the window follows the end. Near an edge the window moves by STEP (and older records are asked for at the beginning); the row
// at the top of the view keeps its place meanwhile, so that nothing jumps. Rows are kept by a key and reused.

import { h, arrange, icon, iconButton, soon } from "./dom.js";
import { markup, oneLine } from "./markup.js";
import { avatar, paint } from "./person.js";
import { dayKey, dayName, fullTime, timeOf } from "./times.js";

const ROWS = 160;
const STEP = 60;
const EDGE_PX = 500;
const LINES = 16; // of an answer are shown at once
const GROUP_MS = 5 * 60_000;

export class Messages {
	constructor(store, { reply }) {
		this.store = store;
		this.reply = reply;
		this.until = Infinity;
		this.rows = new Map(); // key → node
		this.unfolded = new Set(); // seqs by people whom one ignores, shown all the same
		this.stuck = true; // at the bottom, and stays there
		this.list = h("div.rows");
		this.scroller = h("div.scroller", { role: "log", "aria-live": "off", "aria-label": "Messages", tabindex: "0", onscroll: () => this.#scrolled() }, this.list);
		this.jump = h("button.jump", { hidden: true, onclick: () => this.toEnd() }, icon("down"), h("span", "Latest"));
		this.announcer = h("div.unseen", { "aria-live": "polite" });
		this.element = h("section.messages", { "aria-label": "Conversation" }, this.scroller, this.jump, this.announcer);
		this.draw = soon(() => this.#draw());
		store.on("change", (conv) => (conv === null || conv === store.current) && this.draw());
		store.on("shown", () => this.toEnd());
		store.on("live", (conv, records) => conv === store.current && this.#announce(records));
		new ResizeObserver(() => this.stuck && this.#pin()).observe(this.scroller);
	}

	toEnd() {
		this.until = Infinity;
		this.stuck = true;
		this.draw();
		this.store.read();
	}

	page(direction) {
		this.scroller.scrollBy({ top: direction * this.scroller.clientHeight * 0.85 });
	}

	#pin() {
		this.height = this.scroller.clientHeight;
		this.scroller.scrollTop = this.scroller.scrollHeight;
	}

	#scrolled() {
		const { scrollTop, scrollHeight, clientHeight } = this.scroller;
		if (this.stuck && clientHeight !== this.height) return this.#pin(); // it was not scrolled: something took its room
		const below = scrollHeight - clientHeight - scrollTop;
		const records = this.store.timeline(this.store.current)?.records ?? [];
		this.stuck = below < 40 && this.until >= records.length;
		if (this.stuck) this.until = Infinity;
		this.jump.hidden = below < 300 && this.until >= records.length;
		if (scrollTop < EDGE_PX) this.#earlier(records);
		else if (below < EDGE_PX && this.until < records.length) {
			this.until = this.until + STEP >= records.length ? Infinity : this.until + STEP;
			this.draw();
		}
	}

	async #earlier(records) {
		const conv = this.store.current;
		const end = Math.min(this.until, records.length);
		if (end > ROWS) {
			this.until = Math.max(ROWS, end - STEP);
			this.draw();
		} else if (!this.stuck || records.length >= ROWS || this.scroller.scrollHeight <= this.scroller.clientHeight + EDGE_PX) {
			const follows = this.until === Infinity && this.stuck;
			const came = await this.store.loadOlder(conv);
			if (came && conv === this.store.current && !follows) this.until = Math.max(ROWS, end + came - STEP);
			if (came) this.draw();
		}
	}

	#announce(records) {
		const said = records.filter((record) => record.type === "message" && record.from !== this.store.me && !this.store.folds(this.store.current, record)).slice(-3);
		if (said.length) this.announcer.replaceChildren(...said.map((record) => h("p", `${record.from}: ${record.text.slice(0, 300)}`)));
	}

	// ---- drawing

	#draw() {
		const { store } = this;
		const here = store.here;
		const timeline = store.timeline(store.current);
		if (this.shown !== store.current || this.generation !== timeline?.generation) {
			this.rows.clear();
			this.unfolded.clear();
			this.shown = store.current;
			this.generation = timeline?.generation;
		}
		const anchor = this.stuck ? null : this.#anchor();
		arrange(this.list, here ? this.#window(here, timeline) : []);
		const kept = new Set(this.list.children);
		for (const [key, node] of this.rows) if (!kept.has(node)) this.rows.delete(key);
		if (this.stuck) this.#pin();
		else if (anchor?.node.isConnected) this.scroller.scrollTop += anchor.node.getBoundingClientRect().top - anchor.top;
		if (this.stuck) this.jump.hidden = true;
		if (timeline && !timeline.complete && this.scroller.scrollTop < EDGE_PX && here && !here.loading && store.client.online) this.#scrolled();
	}

	// The first row in view, and where it is.
	#anchor() {
		const top = this.scroller.getBoundingClientRect().top;
		for (const node of this.list.children) {
			const box = node.getBoundingClientRect();
			if (box.bottom > top && node.dataset.seq) return { node, top: box.top };
		}
		return null;
	}

	#window(here, timeline) {
		const records = timeline?.records ?? [];
		const end = Math.min(this.until, records.length);
		const start = Math.max(0, end - ROWS);
		const atEnd = end === records.length;
		const nodes = [];
		const notes = here.notes.filter((note) => (start === 0 || note.after >= records[start].seq) && (atEnd || note.after < records[end - 1].seq));
		let before = null;
		if (start === 0) nodes.push(this.#beginning(here, timeline));
		const takeNotes = (seq) => {
			while (notes.length && notes[0].after < seq) {
				nodes.push(this.#noteRow(here, notes.shift()));
				before = null;
			}
		};
		for (let n = start; n < end; n++) {
			const record = records[n];
			takeNotes(record.seq);
			const isNew = here.line !== null && record.seq > here.line && (n === 0 || records[n - 1].seq <= here.line);
			if (record.ts && (!before?.ts || dayKey(before.ts) !== dayKey(record.ts)) && !(before === null && n > start && dayKey(records[n - 1].ts ?? 0) === dayKey(record.ts))) {
				nodes.push(this.#row(`d${dayKey(record.ts)}`, () => h("div.day", { role: "separator" }, h("span", dayName(record.ts)))));
				before = null;
			}
			if (isNew) {
				nodes.push(this.#row(`new${here.line}`, () => h("div.new-line", { role: "separator" }, h("span", "New messages"))));
				before = null;
			}
			if (this.store.folds(here.conv, record) && !this.unfolded.has(record.seq)) {
				let last = n;
				while (last + 1 < end && this.#foldsOn(here, records[last], records[last + 1]) && !(notes.length && notes[0].after < records[last + 1].seq)) last += 1;
				nodes.push(this.#foldedRow(records.slice(n, last + 1)));
				n = last;
				before = null;
				continue;
			}
			nodes.push(this.#recordRow(timeline, record, before));
			before = record;
		}
		if (atEnd) {
			takeNotes(Infinity);
			for (const entry of this.store.client.outbox?.of(here.conv) ?? []) {
				const record = { ...entry, type: "message", from: this.store.me };
				nodes.push(this.#waitingRow(record, before, entry));
				before = record;
			}
		}
		return nodes;
	}

	#row(key, make) {
		let node = this.rows.get(key);
		if (!node) this.rows.set(key, (node = make()));
		return node;
	}

	#beginning(here, timeline) {
		if (!timeline?.complete && timeline) {
			return this.#row("loading", () => h("p.loading", this.store.client.online ? "Fetching earlier messages…" : "Earlier messages come when the connection is back."));
		}
		const name = here.conv.slice(1);
		const own = here.conv === `@${this.store.me}`;
		const title = here.conv[0] === "#" ? here.conv : own ? "Notes to yourself" : name;
		const text = here.conv[0] === "#" ? "This is where the channel begins." : own ? "Nobody else reads here." : `This is where your conversation with ${name} begins.`;
		const hint = here.conv[0] === "#" ? h("p", "Type ", h("code", this.store.prefix()), " for what one can do here.") : null;
		return this.#row("beginning", () => h("div.beginning", h("h2", title), h("p", text), hint));
	}

	#recordRow(timeline, record, before) {
		if (record.type === "deleted" && timeline?.find(record.seq + 1)?.type === "deleted") return this.#row(`x${record.seq}`, () => h("div", { hidden: true })); // of several the last is shown
		if (record.type === "message" && record.deleted) {
			return this.#row(`x${record.seq}`, () => h("div.event", { data: { seq: record.seq } }, "a message of ", strong(record.from), " was taken away"));
		}
		if (record.type === "message") {
			const follows = this.#follows(record, before);
			const { color } = this.store.person(record.from);
			return this.#row(`m${record.seq}${follows ? "c" : "h"}${color ?? ""}`, () => this.#messageRow(timeline, record, follows));
		}
		return this.#row(`e${record.seq}`, () => h("div.event", { data: { seq: record.seq } }, eventText(record), record.ts ? h("time", { title: fullTime(record.ts) }, timeOf(record.ts)) : null));
	}

	// What somebody says whom one ignores: one line for all that follows on, which opens it.
	#foldedRow(records) {
		const { from, seq } = records[0];
		const count = records.length === 1 ? "a message" : `${records.length} messages`;
		const open = () => {
			for (const record of records) this.unfolded.add(record.seq);
			this.draw();
		};
		return this.#row(`f${seq}-${records.length}`, () =>
			h("div.event", { data: { seq } }, `${count} by `, strong(from), ", whom you ignore ", h("button.unfold", { onclick: open }, "Show")),
		);
	}

	#foldsOn(here, record, next) {
		const isNew = here.line !== null && next.seq > here.line && record.seq <= here.line;
		return this.store.folds(here.conv, next) && next.from === record.from && !this.unfolded.has(next.seq) && !isNew && dayKey(next.ts) === dayKey(record.ts);
	}

	#follows(record, before) {
		return before?.type === "message" && !before.deleted && before.from === record.from && record.ts - before.ts < GROUP_MS && !record.reply_to;
	}

	#messageRow(timeline, record, follows, extra = []) {
		const { store } = this;
		const mine = record.from === store.me;
		const called = !mine && store.mentions(record.text);
		const { color } = store.person(record.from);
		const stamp = h("time", { datetime: new Date(record.ts).toISOString(), title: fullTime(record.ts) }, timeOf(record.ts));
		const head = follows ? null : h("div.head", paint(h("span.name", record.from), record.from, color), stamp);
		const answered = record.reply_to ? this.#quoted(timeline, record.reply_to) : null;
		const body = h("div.text", markup(record.text, (plain) => this.#highlight(plain)));
		const tools = record.seq ? h("div.tools", iconButton("reply", `Reply to ${record.from}`, () => this.reply(record))) : null;
		return h(
			"article",
			{ class: `message${follows ? " follows" : ""}${called ? " called" : ""}`, data: record.seq ? { seq: record.seq } : {}, "aria-label": `${record.from}, ${timeOf(record.ts)}` },
			h("div.gutter", follows ? stamp : avatar(record.from, color)),
			h("div.body", head, answered, body, extra),
			tools,
		);
	}

	#waitingRow(record, before, entry) {
		const follows = this.#follows(record, before);
		return this.#row(`w${entry.cid}${follows ? "c" : "h"}${entry.failed ? "f" : ""}`, () => {
			const { client } = this.store;
			const extra = entry.failed
				? h(
						"div.failed",
						{ role: "alert" },
						h("span", `Not sent: ${entry.failed}`),
						h("button", { onclick: () => client.retry(entry.cid) }, "Try again"),
						h("button", { onclick: () => client.discard(entry.cid) }, "Drop it"),
					)
				: h("span.unseen", "not sent yet");
			const row = this.#messageRow(null, record, follows, [extra]);
			row.classList.add("waiting");
			return row;
		});
	}

	#quoted(timeline, seq) {
		const found = timeline?.find(seq);
		if (found?.type !== "message" || found.deleted) return h("div.answered", icon("reply"), "an earlier message");
		const { color } = this.store.person(found.from);
		return h("button.answered", { onclick: () => this.#goTo(seq) }, icon("reply"), paint(h("span.name", found.from), found.from, color), h("span.line", oneLine(found.text)));
	}

	#goTo(seq) {
		const selector = `[data-seq="${Number(seq)}"]`;
		if (!this.list.querySelector(selector)) {
			const at = this.store.timeline(this.store.current)?.records.findIndex((record) => record.seq === seq) ?? -1;
			if (at < 0) return;
			this.until = at + ROWS / 2;
			this.stuck = false;
			this.#draw();
		}
		const node = this.list.querySelector(selector);
		node?.scrollIntoView({ block: "center" });
		node?.classList.add("found");
		setTimeout(() => node?.classList.remove("found"), 1600);
	}

	#highlight(plain) {
		const parts = plain.split(/(@[\p{L}\p{N}_](?:[\p{L}\p{N}_.-]*[\p{L}\p{N}_])?)/u);
		return parts.map((part, n) => {
			if (n % 2 === 0) return part;
			const name = part.slice(1);
			const known = this.store.people.has(name) || name.toLowerCase() === this.store.me?.toLowerCase();
			return known ? h("span", { class: name.toLowerCase() === this.store.me?.toLowerCase() ? "mention me" : "mention" }, part) : part;
		});
	}

	// What a command answered; of much the beginning, and a button.
	#answer(note) {
		const lines = (note.text || "done").split("\n");
		const pre = h("pre", lines.map(columns));
		if (note.open || lines.length <= LINES) return pre;
		const unfold = () => {
			note.open = true;
			pre.className = "";
			more.remove();
			this.#scrolled();
		};
		pre.className = "cut";
		const more = h("button.unfold", { onclick: unfold }, `Show all ${lines.length} lines`);
		return [pre, more];
	}

	#noteRow(here, note) {
		const state = note.pending ? "p" : note.failed ? "f" : "";
		return this.#row(`n${note.id}${state}`, () =>
			h(
				"div",
				{ class: `note${note.failed ? " refused" : ""}`, role: "status" },
				h("div.note-head", h("code", this.store.prefix() + note.title), h("span", "only you see this"), iconButton("close", "Dismiss", () => this.store.dismiss(here.conv, note))),
				note.pending ? h("p.working", "…") : this.#answer(note),
			),
		);
	}
}

// The columns of a line, where it has some: the last one, of sentences, wraps for itself.
function columns(line) {
	const found = /^(.*\S {2,})(\S.*)$/.exec(line);
	return found ? h("div.columns", h("span", found[1]), h("span", found[2])) : h("div", line || " ");
}

const strong = (text) => h("b", text);
const because = (record) => (record.reason ? `: ${record.reason}` : "");

export function eventText(record) {
	switch (record.type) {
		case "joined":
			return [strong(record.user), " joined"];
		case "left":
			return record.by ? [strong(record.user), " was removed by ", strong(record.by), because(record)] : [strong(record.user), " left", because(record)];
		case "topic":
			return record.text ? [strong(record.user), " set the topic: ", record.text] : [strong(record.user), " cleared the topic"];
		case "role":
			return [strong(record.user), ` is ${record.role} now, by `, strong(record.by)];
		case "banned":
			return [strong(record.user), " was banned by ", strong(record.by), record.until ? ` until ${fullTime(record.until)}` : "", because(record)];
		case "deleted":
			return [strong(record.by), " took messages away"];
		case "edited":
			return [strong(record.by), " changed a message: ", record.text];
		case "hidden":
			return ["what was written before you came is not shown"];
		case "missing":
			return ["some messages are no longer kept"];
		default:
			return [`something new (${record.type}) that this page does not know yet`];
	}
}
