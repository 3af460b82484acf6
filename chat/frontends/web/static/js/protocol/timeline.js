// One conversation as it is held here: an unbroken stretch of its records that ends where we have read on to.
//
//        first ............ next-1 | next ........ head
//        what we hold              | known to exist, not here yet ("behind")
//
// A record below `next` is a double and dropped; the one at `next` is appended; one above it waits in `ahead` while the history
// is asked for what lies between. Whatever tells of something newer (heads, a gap, an ack, a record) only raises `head`.
// Older records are put in front, page by page, when somebody scrolls back. Where too much was missed the stretch begins anew
// at the head, and what lies between is met by scrolling back: no record is ever shown twice, none left out.
//
// A record of type `hidden` or `missing` stands for several places, from_seq to seq.

export const FILL_LIMIT = 500; // more missed than this: begin anew at the head
export const AHEAD_LIMIT = 1024;

export class Timeline {
	constructor(conv, epoch, head) {
		this.conv = conv;
		this.reset(epoch, head);
	}

	// Begin anew behind `head`.
	reset(epoch, head) {
		this.epoch = epoch;
		this.head = head;
		this.records = [];
		this.first = this.next = head + 1;
		this.complete = head === 0; // there is nothing older
		this.asked = null;
		this.ahead = new Map();
		this.generation = (this.generation ?? 0) + 1; // tells the view that it looks at another stretch
	}

	get behind() {
		return this.next <= this.head;
	}

	raise(head) {
		if (head > this.head) this.head = head;
	}

	// A record, live or replayed. Returns what it made appear, in order.
	receive(record) {
		this.raise(record.seq);
		if (record.seq < this.next) return [];
		if (record.seq > this.next && this.ahead.size >= AHEAD_LIMIT) return [];
		this.ahead.set(record.seq, record);
		return this.#advance();
	}

	// The page to ask for now, or null. It counts as asked until `forward` or `unasked`; what it returns is handed back with the answer.
	wants() {
		if (this.asked || !this.behind) return null;
		if (this.head - this.next >= FILL_LIMIT) {
			this.reset(this.epoch, this.head);
			return null;
		}
		return (this.asked = { after: this.next - 1, head: this.head });
	}

	unasked() {
		this.asked = null;
	}

	// The answer to `wants`. Returns what it made appear.
	forward(page, asked) {
		if (!asked || asked !== this.asked) return []; // it answers a question about what was before a reset
		this.asked = null;
		if (page.epoch !== this.epoch) {
			this.reset(page.epoch, page.last_seq);
			return [];
		}
		const appeared = [];
		for (const raw of page.messages) {
			const record = placed(raw);
			if (record.seq < this.next) continue;
			appeared.push(...this.#skip(record.from_seq ?? record.seq));
			if (record.seq < this.next) continue;
			this.#append(record);
			appeared.push(record);
		}
		if (!page.more) appeared.push(...this.#skip(asked.head + 1));
		this.raise(page.last_seq);
		appeared.push(...this.#advance());
		return appeared;
	}

	// A page of what lies before `first`. Returns how many records were put in front.
	backward(page, before) {
		if (page.epoch !== this.epoch || before !== this.first) return 0;
		this.raise(page.last_seq);
		const older = page.messages.map(placed).filter((record) => record.seq < this.first);
		this.records.unshift(...older);
		if (older.length) this.first = older[0].from_seq ?? older[0].seq;
		if (!older.length || !page.more || this.first <= page.first_seq) this.complete = true;
		return older.length;
	}

	// Let go of the oldest when there are more than `limit`: they can be asked for again.
	trim(limit) {
		if (this.records.length <= limit) return;
		this.records.splice(0, this.records.length - limit);
		this.first = this.records[0].from_seq ?? this.records[0].seq;
		this.complete = false;
	}

	// A message was taken away: what is kept of it is its place.
	erase(seq) {
		const at = this.records.indexOf(this.find(seq));
		if (this.records[at]?.type === "message") this.records[at] = { ...this.records[at], text: "", deleted: true };
	}

	find(seq) {
		let low = 0;
		let high = this.records.length - 1;
		while (low <= high) {
			const middle = (low + high) >> 1;
			const record = this.records[middle];
			if (record.seq === seq) return record;
			if (record.seq < seq) low = middle + 1;
			else high = middle - 1;
		}
		return null;
	}

	#append(record) {
		this.records.push(record);
		this.next = record.seq + 1;
		for (const seq of this.ahead.keys()) if (seq < this.next) this.ahead.delete(seq);
	}

	#advance() {
		const appeared = [];
		for (let record; (record = this.ahead.get(this.next)); ) {
			this.#append(record);
			appeared.push(record);
		}
		return appeared;
	}

	// What lies before `following` is not to be had, but for what has come already.
	#skip(following) {
		const appeared = [];
		while (this.next < following) {
			const here = this.#advance();
			appeared.push(...here);
			if (here.length) continue;
			const end = Math.min(following, ...[...this.ahead.keys()].filter((seq) => seq > this.next));
			const missing = { type: "missing", from_seq: this.next, seq: end - 1 };
			this.#append(missing);
			appeared.push(missing);
		}
		return appeared;
	}
}

function placed(record) {
	return record.type === "hidden" ? { ...record, seq: record.to_seq } : record;
}
