// On the right: who is in the channel, those who are online first.

import { arrange, fill, h, soon } from "./dom.js";
import { avatar, paint, presence } from "./person.js";

const SHOWN = 300;
const RANK = { owner: 0, moderator: 1, member: 2 };

export class Members {
	constructor(store, show) {
		this.store = store;
		this.show = show;
		this.rows = new Map();
		this.title = h("h2");
		this.list = h("ul");
		this.element = h("aside.members", { id: "members", "aria-label": "Members" }, this.title, this.list);
		this.draw = soon(() => this.#draw());
		store.on("change", this.draw);
	}

	#draw() {
		const { store } = this;
		const members = store.here?.members ?? [];
		const unlisted = store.here?.unlisted ?? 0;
		const online = members.filter((member) => member.online);
		const total = members.length + unlisted;
		this.title.textContent = unlisted ? `${total} members` : total ? `${online.length} of ${total} online` : "";
		const order = (a, b) => Number(b.online) - Number(a.online) || RANK[a.role] - RANK[b.role] || a.user.localeCompare(b.user);
		const sorted = [...members].sort(order);
		const rows = sorted.slice(0, SHOWN).map((member) => this.#row(member));
		if (total > rows.length) rows.push(h("li.more", `and ${total - rows.length} more`));
		arrange(this.list, rows);
		const kept = new Set(rows);
		for (const [user, row] of this.rows) if (!kept.has(row.node)) this.rows.delete(user);
	}

	#row({ user, role, color, online }) {
		const key = `${role} ${color} ${online}`;
		let row = this.rows.get(user);
		if (row?.key === key) return row.node;
		if (!row) {
			const title = user === this.store.me ? "Notes to yourself" : `Write to ${user}`;
			const button = h("button", { title, onclick: () => this.show(`@${user}`) });
			row = { button, node: h("li", button) };
			this.rows.set(user, row);
		}
		row.key = key;
		row.button.className = online ? "person" : "person away";
		fill(
			row.button,
			h("span.face", avatar(user, color, "avatar small"), presence(online)),
			paint(h("span.name", user), user, color),
			role !== "member" ? h("span", { class: `role ${role}` }, role) : null,
		);
		return row.node;
	}
}
