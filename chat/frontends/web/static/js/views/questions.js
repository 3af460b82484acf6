// A command asks: a form above the composer with the time that remains. It goes when the question ends.

import { arrange, h } from "./dom.js";

export class Questions {
	constructor(store) {
		this.store = store;
		this.forms = new Map();
		this.element = h("div.questions", { "aria-live": "polite" });
		store.on("change", () => this.#draw());
		store.on("shown", () => this.#draw());
	}

	// All of them, wherever one is: a question of another channel may not wait.
	#draw() {
		const { store } = this;
		for (const [id, form] of this.forms) {
			if (store.questions.has(id)) continue;
			clearInterval(form.timer);
			this.forms.delete(id);
		}
		arrange(this.element, [...store.questions.values()].map((question) => this.#form(question).node));
	}

	#form(question) {
		const known = this.forms.get(question.question);
		if (known) {
			known.show(question);
			return known;
		}
		const { store } = this;
		const left = h("span.left");
		const place = h("span.place");
		const problem = h("p.problem", { role: "alert" });
		const answer = async (text) => {
			if (!text) return;
			problem.textContent = "";
			try {
				await store.answer(question.question, text);
			} catch (error) {
				problem.textContent = error.message;
			}
		};
		const input = h("input", { "aria-label": "Your answer", autocomplete: "off" });
		const fields = question.choices?.length
			? question.choices.map((choice, n) => h("button", { class: n ? "" : "primary", onclick: () => answer(choice) }, choice))
			: [input, h("button.primary", { type: "submit" }, "Answer")];
		const command = question.command ? ` (${store.prefix(question.conv)}${question.command})` : "";
		const node = h(
			"form.question",
			{ "aria-label": `${question.from} asks`, onsubmit: (event) => (event.preventDefault(), answer(input.value.trim())) },
			h("p", h("b", question.from), ` asks${command} `, place, left),
			h("p.asked", question.text),
			h("div.buttons", fields),
			problem,
		);
		const form = { node, question: null };
		const tick = () => {
			const seconds = Math.max(0, Math.ceil((form.question.until - Date.now()) / 1000));
			left.textContent = seconds > 0 ? `${seconds} s left` : "time is up";
			if (seconds > 0) return;
			store.questions.delete(question.question); // the server says so too, but perhaps over a lost connection
			this.#draw();
		};
		form.show = (shown) => {
			place.textContent = shown.conv && shown.conv !== store.current ? `in ${shown.conv} · ` : "";
			if (shown === form.question) return;
			if (form.question) input.value = ""; // asked again: the next answer
			form.question = shown;
			left.textContent = `${Math.ceil((shown.until - Date.now()) / 1000)} s left`;
		};
		form.show(question);
		form.timer = setInterval(tick, 1000);
		this.forms.set(question.question, form);
		return form;
	}
}
