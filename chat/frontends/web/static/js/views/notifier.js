// Outside the page: the title and the icon of the tab, and desktop notifications of mentions and private messages where one allowed them.

export class Notifier {
	constructor(store, keeper, show) {
		Object.assign(this, { store, keeper, show });
		this.icon = document.querySelector("link[rel=icon]");
		store.on("change", () => this.#draw());
		store.on("live", (conv, records) => this.#tell(conv, records));
	}

	get possible() {
		return "Notification" in window && isSecureContext;
	}

	get wanted() {
		return this.possible && Notification.permission === "granted" && this.keeper.preference("notify", false);
	}

	// Returns whether it is so now.
	async want(wanted) {
		if (wanted && Notification.permission !== "granted") wanted = (await Notification.requestPermission()) === "granted";
		this.keeper.savePreference("notify", wanted);
		return wanted;
	}

	#draw() {
		const { store } = this;
		const { unread, current } = store;
		const server = store.client.welcome?.name ?? "chat";
		const title = `${unread ? `(${unread > 99 ? "99+" : unread}) ` : ""}${current ? `${current[0] === "@" ? current.slice(1) : current} · ` : ""}${server}`;
		if (document.title !== title) document.title = title;
		const icon = unread ? "icon-unread.svg" : "icon.svg";
		if (this.icon.getAttribute("href") !== icon) this.icon.setAttribute("href", icon);
	}

	#tell(conv, records) {
		if (!this.wanted || (document.hasFocus() && conv === this.store.current)) return;
		for (const record of records.slice(-3)) {
			if (record.type !== "message" || record.from === this.store.me || Date.now() - record.ts > 120_000) continue;
			if (this.store.folds(conv, record)) continue;
			if (conv[0] !== "@" && !this.store.mentions(record.text)) continue;
			let notification;
			try {
				notification = new Notification(conv[0] === "@" ? record.from : `${record.from} in ${conv}`, { body: record.text.slice(0, 240), tag: conv, icon: "icon.svg" });
			} catch {
				return; // some phones allow them to service workers alone
			}
			notification.onclick = () => {
				window.focus();
				this.show(conv);
				notification.close();
			};
		}
	}
}
