// Where one writes. Enter sends, Shift+Enter makes a line; the prefix opens the completion of commands, @ that of people; ↑ in an empty
// field brings back what was written last. The field is a combobox: the arrows move in the list while the focus stays here.

import { suggest } from "../state/completion.js";
import { arrange, h, icon, iconButton } from "./dom.js";

const REMEMBERED = 50;

export class Composer {
	constructor(store) {
		this.store = store;
		this.said = [];
		this.recall = -1;
		this.found = null;
		this.chosen = 0;
		this.answering = null; // the record that is replied to
		this.field = h("textarea", {
			id: "composer",
			rows: "1",
			autocomplete: "off",
			enterkeyhint: "send",
			role: "combobox",
			"aria-autocomplete": "list",
			"aria-expanded": "false",
			"aria-controls": "completion",
			"aria-haspopup": "listbox",
			oninput: () => this.#typed(),
			onkeydown: (event) => this.#key(event),
			onkeyup: (event) => ["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key) && this.#complete(),
			onclick: () => this.#complete(),
			onblur: () => this.#close(),
		});
		this.options = h("div.options");
		this.hint = h("div.usage");
		this.popup = h("div.completion", { id: "completion", role: "listbox", "aria-label": "Completion", hidden: true }, this.hint, this.options);
		this.replying = h("div.replying", { hidden: true });
		this.waiting = h("div.replying.countdown", { role: "timer", "aria-live": "off", hidden: true });
		this.button = h("button.send", { type: "submit", "aria-label": "Send", title: "Send" }, icon("send"));
		this.element = h("form.composer", { "aria-label": "Write", onsubmit: (event) => (event.preventDefault(), this.#submit()) }, this.popup, this.waiting, this.replying, h("div.field", this.field, this.button));
		store.on("shown", (conv) => this.#shown(conv));
		store.on("change", () => this.#refresh());
		setInterval(() => this.ticking && this.#countDown(), 250);
	}

	focus() {
		this.field.focus();
	}

	reply(record) {
		this.answering = record;
		this.replying.replaceChildren(icon("reply"), h("span", "Replying to ", h("b", record.from), h("span.line", ` ${record.text.slice(0, 120)}`)), iconButton("close", "Do not reply", () => this.#noReply()));
		this.replying.hidden = false;
		this.focus();
	}

	#noReply() {
		this.answering = null;
		this.replying.hidden = true;
	}

	#shown(conv) {
		const before = this.store.conversations.get(this.conv);
		if (before) before.draft = this.field.value;
		this.conv = conv;
		this.field.value = this.store.here?.draft ?? "";
		this.#noReply();
		this.#close();
		this.#refresh();
		this.#grow();
	}

	#refresh() {
		const { current, me } = this.store;
		const name = current === `@${me}` ? "yourself" : current?.[0] === "@" ? current.slice(1) : current;
		const label = current ? `Message ${name}` : "";
		if (this.field.placeholder !== label) {
			this.field.placeholder = label;
			this.field.setAttribute("aria-label", label);
		}
		this.element.hidden = !current;
		this.#countDown();
		if (this.store.here?.commands !== this.commands) {
			this.commands = this.store.here?.commands;
			if (document.activeElement === this.field) this.#complete();
		}
	}

	// What was said last has to wait (slow mode, too fast): it is sent by itself, and this says when.
	#countDown() {
		const { outbox, held } = this.store.client;
		const hold = this.store.current && outbox?.of(this.store.current).some((entry) => !entry.failed) ? outbox.held(this.store.current) : held;
		this.ticking = Boolean(hold);
		this.waiting.hidden = !hold;
		if (!hold) return;
		const seconds = Math.max(0, Math.ceil((hold.until - Date.now()) / 1000));
		const text = `${hold.why.replace(/;? wait [\d.]+ s$/, "")}: ${hold.name ? `${this.store.prefix()}${hold.name} is tried again` : "your message is sent"} in ${seconds} s`;
		if (this.waiting.textContent !== text) this.waiting.textContent = text;
	}

	#typed() {
		this.recall = -1;
		this.#grow();
		this.#complete();
	}

	#grow() {
		this.field.style.height = "auto";
		this.field.style.height = `${Math.min(this.field.scrollHeight, window.innerHeight * 0.4)}px`;
		this.button.disabled = !this.field.value.trim();
	}

	async #submit() {
		const text = this.field.value.replace(/^\n+|\s+$/g, "");
		const { store } = this;
		if (!text.trim() || !store.here) return;
		const prefix = store.prefix();
		const most = store.client.welcome?.limits?.text_bytes ?? 16384;
		if (new TextEncoder().encode(text).length > most) return store.tell(`That is too long: ${most} bytes at most.`, "warning");
		const command = text.startsWith(prefix);
		const shown = command ? prefix + store.shownCommand(text.slice(prefix.length)) : text;
		if (shown === text && this.said.at(-1) !== text) this.said = [...this.said, text].slice(-REMEMBERED); // no secrets
		this.field.value = "";
		store.here.draft = "";
		this.recall = -1;
		this.#grow();
		this.#close();
		if (command) store.command(text.slice(prefix.length));
		else store.say(text, this.answering?.seq ?? null);
		this.#noReply();
		this.onsent?.();
	}

	#key(event) {
		if (event.isComposing) return;
		if (!this.popup.hidden && this.#popupKey(event)) return event.preventDefault();
		if (event.key === "Enter" && !event.shiftKey && !event.altKey) {
			event.preventDefault();
			this.#submit();
		} else if (event.key === "Escape" && this.answering) this.#noReply();
		else if ((event.key === "ArrowUp" || event.key === "ArrowDown") && (this.recall >= 0 || !this.field.value)) {
			const next = this.recall + (event.key === "ArrowUp" ? 1 : -1);
			if (next >= this.said.length || next < -1) return;
			event.preventDefault();
			this.recall = next;
			this.field.value = next < 0 ? "" : this.said.at(-1 - next);
			this.#grow();
		} else if (event.key === "PageUp" || event.key === "PageDown") {
			event.preventDefault();
			this.onpage?.(event.key === "PageUp" ? -1 : 1);
		}
	}

	// Whether the key was the popup's.
	#popupKey(event) {
		const { candidates } = this.found;
		if (event.key === "Escape") this.#close();
		else if (!candidates.length) return false;
		else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
			this.chosen = (this.chosen + (event.key === "ArrowDown" ? 1 : candidates.length - 1)) % candidates.length;
			this.#drawPopup();
		} else if (event.key === "Tab" || (event.key === "Enter" && !event.shiftKey)) {
			const finished = event.key === "Enter" && this.field.value.slice(this.found.from, this.found.to).trim() === candidates[this.chosen].insert.trim();
			if (finished) return false;
			this.#take(candidates[this.chosen]);
		} else return false;
		return true;
	}

	#take(candidate) {
		const { from, to } = this.found;
		this.field.setRangeText(candidate.insert, from, to, "end");
		this.#typed();
		this.focus();
	}

	// ---- completion

	#complete() {
		const { store } = this;
		const here = store.here;
		if (!here || this.field.selectionStart !== this.field.selectionEnd) return this.#close();
		const members = here.members?.map(({ user, online }) => ({ name: user, detail: online ? "online" : "" })) ?? [];
		const names = new Set(members.map(({ name }) => name));
		const others = [...store.people.keys()].filter((name) => !names.has(name)).map((name) => ({ name }));
		const found = suggest(this.field.value, this.field.selectionStart, {
			prefix: store.prefix(),
			commands: here.commands ?? [],
			people: [...members, ...others],
			channels: store.channels.map(({ conv, topic }) => ({ name: conv.slice(1), detail: topic })),
		});
		if (!found) return this.#close();
		if (found.title !== this.found?.title || found.from !== this.found?.from || found.candidates.length !== this.found.candidates.length) this.chosen = 0;
		this.found = found;
		this.#drawPopup();
	}

	#drawPopup() {
		const { candidates, command, argument, title } = this.found;
		this.hint.replaceChildren(...(command ? usage(command, argument, this.store.prefix()) : [h("span.title", title)]));
		arrange(
			this.options,
			candidates.map((candidate, n) =>
				h(
					"div.option",
					{ role: "option", id: `option-${n}`, "aria-selected": String(n === this.chosen), onmousedown: (event) => (event.preventDefault(), this.#take(candidate)) },
					h("span.label", candidate.label, candidate.usage ? h("span.arguments", ` ${candidate.usage}`) : null),
					candidate.detail ? h("span.detail", candidate.detail) : null,
				),
			),
		);
		this.popup.hidden = false;
		this.field.setAttribute("aria-expanded", "true");
		if (candidates.length) this.field.setAttribute("aria-activedescendant", `option-${this.chosen}`);
		else this.field.removeAttribute("aria-activedescendant");
		this.options.children[this.chosen]?.scrollIntoView({ block: "nearest" });
	}

	#close() {
		this.found = null;
		this.popup.hidden = true;
		this.field.setAttribute("aria-expanded", "false");
		this.field.removeAttribute("aria-activedescendant");
	}
}

function usage(command, at, prefix) {
	const words = command.arguments.map(({ name, required }, n) => [" ", h("span", { class: n === at ? "argument now" : "argument" }, required ? `<${name}>` : `(${name})`)]);
	return [h("code", prefix + command.name, ...words.flat()), h("span.detail", command.description)];
}
