// What a browser remembers of a session: its token and where it has read to. In this tab alone (sessionStorage), or for the device
// (localStorage) when its owner asked for it.

const SESSION = "chat.session";
const COMMANDS = "chat.commands";

export class Keeper {
	constructor(tab, device) {
		this.tab = tab;
		this.device = device;
	}

	// {user, session, token, device: whether it is kept for the device}, or null
	get session() {
		return read(this.tab, SESSION) ?? read(this.device, SESSION);
	}

	save(session) {
		const [storage, other] = session.device ? [this.device, this.tab] : [this.tab, this.device];
		write(storage, SESSION, session);
		if (read(other, SESSION)?.session === session.session) remove(other, SESSION);
		if (session.device) remove(this.tab, SESSION);
	}

	forget(session) {
		for (const storage of [this.tab, this.device]) if (read(storage, SESSION)?.session === session) remove(storage, SESSION);
	}

	// Commands under way, {conv, command}: of this tab, and of its session alone.
	commands(session) {
		return (read(this.tab, COMMANDS) ?? []).filter((each) => each.session === session);
	}

	keepCommand(session, kept) {
		write(this.tab, COMMANDS, [...this.commands(session), { session, ...kept }]);
	}

	dropCommand(cid) {
		const kept = read(this.tab, COMMANDS);
		if (kept?.some(({ command }) => command.cid === cid)) write(this.tab, COMMANDS, kept.filter(({ command }) => command.cid !== cid));
	}

	outboxKey(user, session) {
		return `chat.outbox.${user}.${session}`;
	}

	// The outboxes that sessions of `user` left behind, but for those of `living` ones.
	leftOutboxes(user, living) {
		const prefix = this.outboxKey(user, "");
		const keys = [];
		try {
			for (let n = 0; n < this.device.length; n++) {
				const key = this.device.key(n);
				if (key.startsWith(prefix) && !living.has(key.slice(prefix.length))) keys.push(key);
			}
		} catch {
			/* no storage */
		}
		return keys;
	}

	// conv → [epoch, seq] up to which was read
	readMarks(user) {
		return read(this.device, `chat.read.${user}`) ?? {};
	}

	saveReadMarks(user, marks) {
		write(this.device, `chat.read.${user}`, marks);
	}

	preference(name, fallback) {
		return read(this.device, `chat.preference.${name}`) ?? fallback;
	}

	savePreference(name, value) {
		write(this.device, `chat.preference.${name}`, value);
	}
}

// A storage for where the browser allows none.
export class Memory extends Map {
	get length() {
		return this.size;
	}
	key(n) {
		return [...this.keys()][n] ?? null;
	}
	getItem(key) {
		return this.get(key) ?? null;
	}
	setItem(key, value) {
		this.set(key, String(value));
	}
	removeItem(key) {
		this.delete(key);
	}
}

function read(storage, key) {
	try {
		return JSON.parse(storage.getItem(key) ?? "null");
	} catch {
		return null;
	}
}

function write(storage, key, value) {
	try {
		storage.setItem(key, JSON.stringify(value));
	} catch {
		/* full or forbidden */
	}
}

function remove(storage, key) {
	try {
		storage.removeItem(key);
	} catch {
		/* forbidden */
	}
}
