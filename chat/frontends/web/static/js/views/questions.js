// A command asks: a form above the composer. The newest is open, those before it are one line. How one ended stands there for a while.

import { arrange, fill, h, iconButton, icon } from "./dom.js";

const REMEMBERED = 50;

export class Questions {
	constructor(store, keeper) {
		this.store = store;
		this.keeper = keeper;
		this.forms = new Map();
		this.folds = new Map(keeper.preference("folds", [])); // id → whether it is folded; one that is not in it is new
		this.text = h("span.line");
		this.folded = h("button.folded", { "aria-expanded": "false", onclick: () => this.#unfold() }, icon("fold"), this.text);
		this.list = h("div", { "aria-live": "polite" });
		this.element = h("section.questions", { "aria-label": "Questions" }, this.folded, this.list);
		store.on("change", () => this.#draw());
	}

	// All of them, wherever one is: a question of another channel may not wait.
	#draw() {
		const { store, forms, folds } = this;
		for (const [id, form] of forms) {
			if (store.questions.has(id)) continue;
			clearInterval(form.timer);
			forms.delete(id);
		}
		const all = [...store.questions.values()];
		for (const { question } of all) {
			if (folds.has(question)) continue;
			for (const before of all) if (folds.has(before.question) && !forms.get(before.question)?.busy()) folds.set(before.question, true);
			this.#fold(question, false);
		}
		const nodes = all.map((each) => (forms.get(each.question) ?? this.#form(each)).show(each));
		const folded = all.filter((each) => !each.outcome && folds.get(each.question));
		arrange(this.list, nodes.filter((node, n) => !folded.includes(all[n])).reverse());
		const text = `${folded.length > 1 ? `${folded.length} questions` : "A question"}: ${folded.at(-1)?.text}`;
		if (this.text.textContent !== text) this.text.textContent = text;
		this.folded.hidden = !folded.length;
		this.element.hidden = !all.length;
	}

	#fold(id, folded) {
		this.folds.set(id, folded);
		this.keeper.savePreference("folds", [...this.folds].slice(-REMEMBERED));
	}

	#unfold() {
		for (const id of this.store.questions.keys()) this.#fold(id, false);
		this.#draw();
		this.list.querySelector("[aria-expanded]")?.focus();
	}

	#form(question) {
		const { store } = this;
		const id = question.question;
		const left = h("span.left", { role: "timer" });
		const place = h("span.place");
		const problem = h("p.problem", { role: "alert" });
		const answer = async (text) => {
			if (!text) return;
			problem.textContent = "";
			try {
				await store.answer(id, text);
			} catch (error) {
				problem.textContent = error.message;
			}
		};
		const fold = () => {
			this.#fold(id, true);
			this.#draw();
			this.folded.focus();
		};
		const input = h("input", { "aria-label": "Your answer", autocomplete: "off" });
		const fields = question.choices?.length
			? question.choices.map((choice) => h("button", { onclick: () => answer(choice) }, choice))
			: [input, h("button.primary", { type: "submit" }, "Answer")];
		const command = question.command ? ` (${store.prefix(question.conv)}${question.command})` : "";
		const form = { question: null };
		form.node = h(
			"form.question",
			{ "aria-label": `${question.from} asks`, onsubmit: (event) => (event.preventDefault(), answer(input.value.trim())) },
			h("div.asks", h("p", h("b", question.from), ` asks${command} `, place, left), iconButton("fold", "Fold", fold, { "aria-expanded": "true" })),
			h("p.asked", question.text),
			h("div.buttons", fields),
			problem,
		);
		const tick = () => {
			const seconds = Math.max(0, Math.ceil((form.question.until - Date.now()) / 1000));
			left.textContent = `${seconds} s left`;
			if (!seconds) store.over(id, "timeout"); // the server says so too, but perhaps over a lost connection
		};
		form.busy = () => input.value || form.node.contains(document.activeElement);
		form.show = (shown) => {
			place.textContent = shown.conv && shown.conv !== store.current ? `in ${shown.conv} · ` : "";
			if (shown.outcome && shown.outcome !== form.outcome) {
				const close = iconButton("close", "Dismiss", () => store.over(id));
				const focused = form.node.contains(document.activeElement);
				form.node.className = "outcome";
				fill(form.node, h("p", h("span.line", h("b", shown.from), ` asked: ${shown.text}`), h("b", shown.outcome)), close);
				if (focused) close.focus();
			}
			form.outcome = shown.outcome;
			if (shown !== form.question) {
				if (form.question) input.value = ""; // asked again: the next answer
				form.question = shown;
				tick();
			}
			return form.node;
		};
		this.forms.set(id, form);
		form.timer = setInterval(tick, 1000);
		return form;
	}
}
