// The first thing one sees: who invites, a name and a password to choose, or to log in with.

import { WORD, h, reveal, row } from "./dom.js";
import { sentence } from "./markup.js";

export class Welcome {
	// `enter(request, device)` opens the session.
	constructor(client, enter) {
		this.client = client;
		this.enter = enter;
		this.invite = "";
		this.registering = false;
		this.heading = h("h1");
		this.lead = h("p.lead");
		this.username = h("input", { id: "username", name: "username", ...WORD, autocomplete: "username", maxlength: "64" });
		this.password = h("input", { id: "password", name: "password", type: "password", required: true, maxlength: "256" });
		this.code = h("input", { id: "invite", name: "invite", autocomplete: "off", spellcheck: "false", oninput: () => (this.invite = inviteOf(this.code.value)) });
		this.codeRow = row("Invite", this.code);
		this.passwordHint = h("p.hint", { id: "password-hint" }, "At least 8 characters.");
		this.device = h("input", { type: "checkbox", id: "device", name: "device" });
		this.problem = h("p.problem", { role: "alert" });
		this.submit = h("button.primary", { type: "submit" });
		this.other = h("button.quiet", { onclick: () => this.#switch(!this.registering) });
		this.form = h(
			"form.card",
			{ novalidate: true, onsubmit: (event) => (event.preventDefault(), this.#submit()) },
			h("span.mark", { "aria-hidden": "true" }),
			this.heading,
			this.lead,
			this.codeRow,
			row("Name", this.username),
			row("Password", this.password, this.passwordHint, reveal(this.password)),
			h("label.check", this.device, h("span", "Keep me logged in on this device")),
			this.problem,
			this.submit,
			this.other,
		);
		this.element = h("main.welcome", this.form);
		client.on("welcome", () => this.draw());
	}

	// `invite` comes from the link, `why` says what ended the session before.
	start({ invite = "", name = "", why = "" } = {}) {
		this.invite = invite;
		this.code.value = invite;
		this.invited = Boolean(invite);
		this.registering = this.invited;
		if (name) this.username.value = name;
		this.password.value = "";
		this.problem.textContent = why;
		this.draw();
		(name ? this.password : this.username).focus();
	}

	draw() {
		const { welcome } = this.client;
		const open = welcome?.registration === "open";
		const name = welcome?.name || "chat";
		const registering = this.registering;
		this.heading.textContent = registering && this.invited ? `You are invited to ${name}` : registering ? `Join ${name}` : `Welcome back to ${name}`;
		if (!registering && !this.client.remembered && !this.username.value) this.heading.textContent = name;
		this.lead.textContent = registering ? "Choose a name and a password, and you are in." : "Log in with your name and password.";
		this.codeRow.hidden = !registering || this.invited || open;
		this.passwordHint.hidden = !registering;
		this.password.setAttribute("autocomplete", registering ? "new-password" : "current-password");
		if (registering) this.password.setAttribute("aria-describedby", "password-hint");
		else this.password.removeAttribute("aria-describedby");
		this.submit.textContent = registering ? "Start talking" : "Log in";
		this.other.textContent = registering ? "I have an account" : open ? "Make an account" : "I have an invite";
		this.other.hidden = welcome?.registration === "closed" && !registering;
	}

	#switch(registering) {
		this.registering = registering;
		this.problem.textContent = "";
		this.draw();
		this.username.focus();
	}

	async #submit() {
		const username = this.username.value.trim();
		const password = this.password.value;
		const registering = this.registering;
		if (!username) return this.#refuse("Please choose a name.", this.username);
		if (!password) return this.#refuse("Please type a password.", this.password);
		if (registering && new TextEncoder().encode(password.normalize("NFC")).length < 8) return this.#refuse("The password needs at least 8 characters.", this.password);
		this.submit.disabled = true;
		this.form.setAttribute("aria-busy", "true");
		this.problem.textContent = "";
		try {
			const request = { type: registering ? "register" : "login", username, password };
			if (registering && this.invite) request.invite = this.invite;
			await this.enter(request, this.device.checked);
			this.password.value = "";
		} catch (error) {
			const field = error.code === "unauthorized" ? this.password : this.username;
			this.#refuse(error.code ? refused(error) : "The server cannot be reached. Please try again.", field);
		} finally {
			this.submit.disabled = false;
			this.form.removeAttribute("aria-busy");
		}
	}

	#refuse(why, field) {
		this.problem.textContent = why;
		field.focus();
	}
}

// The code, also where somebody pasted a whole link or join line.
export function inviteOf(text) {
	const trimmed = text.trim();
	const link = /[#&?]invite=([^&\s]+)/.exec(trimmed);
	if (link) return new URLSearchParams(link[0].slice(1)).get("invite");
	return trimmed.includes("/") ? trimmed.slice(trimmed.lastIndexOf("/") + 1) : trimmed;
}

function refused({ message, retryAfter }) {
	return sentence(message) + (retryAfter ? ` Try again in ${Math.ceil(retryAfter)} s.` : "");
}
