// A command asks: a form above the composer with the time that remains. It goes when the question ends.

import { arrange, h } from "./dom.js";

export class Questions {
  constructor(store) {
    this.store = store;
    this.forms = new Map();
    this.element = h("div", { class: "questions", "aria-live": "polite" });
    store.on("change", () => this.#draw());
    store.on("shown", () => this.#draw());
  }

  #draw() {
    const { store } = this;
    const here = [...store.questions.values()].filter((each) => !each.conv || each.conv === store.current || !store.conversations.has(each.conv));
    for (const id of this.forms.keys()) {
      if (store.questions.has(id)) continue;
      clearInterval(this.forms.get(id).timer);
      this.forms.delete(id);
    }
    arrange(this.element, here.map((question) => this.#form(question).node));
  }

  #form(question) {
    const known = this.forms.get(question.question);
    if (known) return known;
    const left = h("span", { class: "left" });
    const problem = h("p", { class: "problem", role: "alert" });
    const answer = async (text) => {
      if (!text) return;
      try {
        await this.store.answer(question.question, text);
      } catch (error) {
        problem.textContent = error.message;
      }
    };
    const input = h("input", { "aria-label": "Your answer", autocomplete: "off" });
    const fields = question.choices?.length
      ? question.choices.map((choice, n) => h("button", { type: "button", class: n ? "" : "primary", onclick: () => answer(choice) }, choice))
      : [input, h("button", { type: "submit", class: "primary" }, "Answer")];
    const node = h(
      "form",
      { class: "question", "aria-label": `${question.from} asks`, onsubmit: (event) => (event.preventDefault(), answer(input.value.trim())) },
      h("p", {}, h("b", {}, question.from), " asks ", left),
      h("p", { class: "asked" }, question.text),
      h("div", { class: "buttons" }, fields),
      problem,
    );
    const tick = () => {
      const seconds = Math.max(0, Math.ceil((question.until - Date.now()) / 1000));
      left.textContent = seconds > 0 ? `${seconds} s left` : "time is up";
      if (seconds > 0) return;
      clearInterval(form.timer);
      this.store.questions.delete(question.question); // the server says so too, but perhaps over a lost connection
      this.#draw();
    };
    const form = { node, timer: setInterval(tick, 1000) };
    this.forms.set(question.question, form);
    left.textContent = `${Math.ceil((question.until - Date.now()) / 1000)} s left`;
    return form;
  }
}
