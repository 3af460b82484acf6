// On the left: the server, its channels, private conversations, and oneself.

import { arrange, fill, h, iconButton, soon } from "./dom.js";
import { avatar, presence } from "./person.js";

export class Sidebar {
	constructor(store, actions) {
		this.store = store;
		this.actions = actions;
		this.title = h("h1");
		this.channels = h("ul.conversations");
		this.privates = h("ul.conversations");
		this.own = h("div.me");
		this.rows = new Map();
		this.element = h(
			"nav.sidebar",
			{ id: "sidebar", "aria-label": "Conversations" },
			h("header", h("span.mark", { "aria-hidden": "true" }), this.title),
			h(
				"div.lists",
				h("div.list-head", h("h2", "Channels"), iconButton("plus", "Join or create a channel", actions.addChannel)),
				this.channels,
				h("div.list-head", h("h2", "Private"), iconButton("plus", "Write to somebody", actions.addPrivate)),
				this.privates,
			),
			h("div.own", this.own, iconButton("gear", "Settings and sessions", actions.settings)),
		);
		this.draw = soon(() => this.#draw());
		store.on("change", this.draw);
	}

	#draw() {
		const { store } = this;
		this.title.textContent = store.client.welcome?.name ?? "chat";
		arrange(this.channels, store.channels.map((each) => this.#row(each)));
		arrange(this.privates, store.privates.map((each) => this.#row(each)));
		const waiting = store.client.outbox?.entries.length ?? 0;
		const key = `${store.me} ${store.client.state} ${waiting} ${store.person(store.me).color}`;
		if (store.me && key !== this.shownOwn) {
			this.shownOwn = key;
			const state = { online: "online", connecting: "connecting…", waiting: "offline", replaced: "elsewhere" }[store.client.state] ?? "";
			fill(
				this.own,
				avatar(store.me, store.person(store.me).color),
				h("div.who", h("b", store.me), h("span", waiting && !store.client.online ? `${waiting} to be sent` : state)),
			);
		}
	}

	#row(each) {
		const { store } = this;
		const { conv, unread, mentions } = each;
		const here = conv === store.current;
		const name = conv.slice(1);
		const person = conv[0] === "@" ? store.person(name) : null;
		const waiting = store.client.outbox?.of(conv).some((entry) => entry.failed);
		const key = `${conv} ${here} ${unread} ${mentions} ${person?.online} ${person?.color} ${waiting}`;
		let row = this.rows.get(conv);
		if (row?.key === key) return row.node;
		if (!row) {
			const button = h("button", { onclick: () => this.actions.show(conv) });
			row = { button, node: h("li", button) };
			this.rows.set(conv, row);
		}
		row.key = key;
		const count = mentions || (conv[0] === "@" ? unread : 0);
		row.button.className = `conversation${unread ? " unread" : ""}`;
		row.button.ariaCurrent = here ? "page" : null;
		row.button.ariaLabel = `${name}${unread ? `, ${unread} unread` : ""}${mentions ? `, ${mentions} for you` : ""}`;
		fill(
			row.button,
			person ? h("span.face", avatar(name, person.color, "avatar small"), presence(person.online)) : h("span.hash", { "aria-hidden": "true" }, "#"),
			h("span.label", conv === `@${store.me}` ? `${name} (you)` : name),
			waiting ? h("span.badge.failed", { title: "something was not sent" }, "!") : null,
			count ? h("span.badge", count > 99 ? "99+" : String(count)) : unread ? h("span.pip") : null,
		);
		return row.node;
	}
}
