// The page once one is in: sidebar, conversation, members; on a phone the sides are drawers.

import { Composer } from "./composer.js";
import * as dialogs from "./dialogs.js";
import { h, iconButton, soon } from "./dom.js";
import { Members } from "./members.js";
import { Messages } from "./messages.js";
import { Questions } from "./questions.js";
import { Sidebar } from "./sidebar.js";
import { oneLine } from "./markup.js";

const NARROW = matchMedia("(max-width: 900px)"); // the members are a drawer too

export class App {
	constructor(store, { theme, notifier, status, keeper }) {
		this.store = store;
		this.keeper = keeper;
		const show = (conv) => this.show(conv);
		this.composer = new Composer(store);
		this.messages = new Messages(store, { reply: (record) => this.composer.reply(record) });
		this.sidebar = new Sidebar(store, {
			show,
			addChannel: () => dialogs.addChannel(store),
			addPrivate: () => dialogs.addPrivate(store, show),
			settings: () => dialogs.settings(store, { theme, notifier }),
		});
		this.members = new Members(store, show);
		this.questions = new Questions(store, keeper);
		this.composer.onsent = () => this.messages.toEnd();
		this.composer.onpage = (direction) => this.messages.page(direction);
		this.name = h("h2");
		this.topic = h("p.topic");
		this.role = h("span.tag");
		this.menuButton = iconButton("menu", "Conversations", () => this.#drawer("sidebar"), { "aria-controls": "sidebar", "aria-expanded": "false" });
		this.menuCount = h("span.badge", { hidden: true });
		this.menuButton.append(this.menuCount);
		this.menuButton.classList.add("for-phone");
		this.leaveButton = iconButton("leave", "Leave the channel", () => this.#leave());
		this.membersButton = iconButton("people", "Members", () => this.#toggleMembers(), { "aria-controls": "members", "aria-expanded": "true" });
		this.empty = h("div.empty", h("p"), h("button.primary", { onclick: () => dialogs.addChannel(store) }, "Find or make one"));
		this.main = h(
			"main.conversation-view",
			h("header.bar", this.menuButton, h("div.titles", h("div.title-line", this.name, this.role), this.topic), this.leaveButton, this.membersButton),
			status.element,
			this.empty,
			this.messages.element,
			this.questions.element,
			this.composer.element,
		);
		this.shade = h("div.shade", { onclick: () => this.#drawer(null) });
		this.element = h("div.app", this.sidebar.element, this.main, this.members.element, this.shade);
		this.element.classList.toggle("without-members", keeper.preference("members", true) === false);
		this.draw = soon(() => this.#draw());
		store.on("change", this.draw);
		store.on("shown", (conv) => {
			if (conv) keeper.savePreference(`last.${store.me}`, conv);
			this.draw();
			this.#drawer(null);
		});
		this.element.addEventListener("keydown", (event) => this.#key(event));
	}

	// The first conversation after one came in.
	begin() {
		const { store } = this;
		if (store.here) return;
		const last = this.keeper.preference(`last.${store.me}`, null);
		const first = store.conversations.has(last) ? last : (store.channels[0] ?? store.privates[0])?.conv;
		if (first) this.show(first);
		this.draw();
	}

	show(conv) {
		this.store.show(conv);
		this.#drawer(null);
		if (matchMedia("(pointer: fine)").matches) this.composer.focus(); // on a phone it would open the keyboard
	}

	#draw() {
		const { store } = this;
		const { here } = store;
		const { online } = store.client;
		this.empty.hidden = Boolean(here);
		this.empty.firstChild.textContent = online ? "You are in no channel yet." : "Your conversations come when the connection is back.";
		this.empty.lastChild.hidden = !online;
		this.messages.element.hidden = !here;
		this.element.classList.toggle("private", here?.conv[0] === "@");
		const own = here?.conv === `@${store.me}`;
		this.name.textContent = !here ? "" : here.conv[0] === "#" ? here.conv : own ? "Notes to yourself" : here.conv.slice(1);
		const topic = !here ? "" : here.conv[0] === "#" ? here.topic : own ? "" : { true: "online", false: "away" }[store.person(here.conv.slice(1)).online] ?? "private conversation";
		if (this.topic.dataset.text !== topic) {
			this.topic.dataset.text = topic;
			this.topic.replaceChildren(...oneLine(topic));
			this.topic.title = topic;
		}
		this.role.textContent = here?.conv[0] === "#" && here.role !== "member" ? here.role : "";
		this.leaveButton.hidden = this.membersButton.hidden = here?.conv[0] !== "#";
		this.menuCount.hidden = !store.unread;
		this.menuCount.textContent = store.unread > 99 ? "99+" : store.unread;
		this.#expanded();
	}

	#toggleMembers() {
		if (NARROW.matches) return this.#drawer("members");
		const without = this.element.classList.toggle("without-members");
		this.keeper.savePreference("members", !without);
		this.#expanded();
	}

	#drawer(which) {
		const now = this.element.dataset.drawer === which ? null : which;
		if (now) this.element.dataset.drawer = now;
		else delete this.element.dataset.drawer;
		this.#expanded();
		if (now === "sidebar") this.sidebar.element.querySelector("[aria-current], button")?.focus();
	}

	#expanded() {
		const drawer = this.element.dataset.drawer;
		this.menuButton.setAttribute("aria-expanded", drawer === "sidebar");
		this.membersButton.setAttribute("aria-expanded", NARROW.matches ? drawer === "members" : !this.element.classList.contains("without-members"));
	}

	async #leave() {
		const { here } = this.store;
		if (!here || !confirm(`Leave ${here.conv}? Its history stays, and you may join again.`)) return;
		try {
			await this.store.leave(here.conv);
		} catch (error) {
			this.store.tell(error.message, "warning");
		}
	}

	// Alt+↑ and Alt+↓ go through the conversations; Escape closes a drawer, or goes to the end.
	#key(event) {
		if (event.altKey && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
			const all = [...this.store.channels, ...this.store.privates].map(({ conv }) => conv);
			const at = all.indexOf(this.store.current) + (event.key === "ArrowUp" ? -1 : 1);
			event.preventDefault();
			if (all.length) this.show(all[(at + all.length) % all.length]);
		} else if (event.key === "Escape" && this.element.dataset.drawer) {
			this.#drawer(null);
			this.menuButton.focus();
		}
	}
}
