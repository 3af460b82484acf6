// Dialogs over the page: join or create a channel, write to somebody, settings with the sessions. The browser's own <dialog> keeps the
// focus inside, closes at Escape and gives the focus back.

import { WORD, h, iconButton, reveal, row } from "./dom.js";
import { ago } from "./times.js";

function open(title, ...content) {
	const heading = h("h2", { id: "dialog-title" }, title);
	const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, h("header", heading, iconButton("close", "Close", () => dialog.close())), ...content);
	dialog.addEventListener("close", () => dialog.remove());
	dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it
	document.body.append(dialog);
	dialog.showModal();
	return dialog;
}

// A form whose problems are said in it. `work()` throws what is wrong.
function form(work, ...content) {
	const problem = h("p.problem", { role: "alert" });
	const element = h("form.dialog-form", { novalidate: true }, ...content, problem);
	element.addEventListener("submit", async (event) => {
		event.preventDefault();
		if (element.getAttribute("aria-busy")) return;
		element.setAttribute("aria-busy", "true");
		problem.textContent = "";
		try {
			await work(event.submitter?.value);
		} catch (error) {
			problem.textContent = error.message;
		} finally {
			element.removeAttribute("aria-busy");
		}
	});
	return element;
}

export function addChannel(store) {
	const name = h("input", { id: "channel-name", ...WORD });
	const password = h("input", { id: "channel-password", type: "password", autocomplete: "off" });
	const found = h("ul.offers");
	const dialog = open(
		"Channels",
		form(
			async (how) => {
				const wanted = name.value.trim().replace(/^#/, "");
				if (!wanted) throw new Error("Please type a name.");
				if (how === "create") await store.create(wanted, password.value);
				else await store.join(wanted, password.value);
				dialog.close();
			},
			found,
			row("Name", name),
			row("Password, for a private one", password),
			h("div.buttons", h("button.primary", { type: "submit", value: "join" }, "Join"), h("button", { type: "submit", value: "create" }, "Create")),
		),
	);
	name.focus();
	offers(store, found, dialog);
}

// The channels that one can see and is not in.
async function offers(store, list, dialog) {
	try {
		const { data } = await store.client.command("channels", null);
		for (const { channel, topic } of (data ?? []).filter((each) => !store.conversations.has(`#${each.channel}`)).slice(0, 100)) {
			const join = async () => {
				try {
					await store.join(channel);
					dialog.close();
				} catch (error) {
					store.tell(error.message, "warning");
				}
			};
			list.append(h("li", h("button", { onclick: join }, h("b", `#${channel}`), topic ? h("span", ` ${topic}`) : null)));
		}
	} catch {
		/* without it one types the name */
	}
}

export function addPrivate(store, show) {
	const names = [...store.people.keys()].sort((a, b) => a.localeCompare(b));
	const name = h("input", { id: "person-name", ...WORD, list: "people" });
	const dialog = open(
		"Write to somebody",
		form(
			async () => {
				const wanted = name.value.trim().replace(/^@/, "");
				if (!wanted) throw new Error("Please type a name.");
				const known = names.find((each) => each.toLowerCase() === wanted.toLowerCase());
				dialog.close();
				show(`@${known ?? wanted}`);
			},
			row("Name", name),
			h("datalist", { id: "people" }, names.map((each) => h("option", { value: each }, each))),
			h("div.buttons", h("button.primary", { type: "submit" }, "Write")),
		),
	);
	name.focus();
}

export function settings(store, { theme, notifier }) {
	const { client } = store;
	const list = h("ul.sessions", h("li", "…"));
	const choose = (value, label) => h("label.choice", h("input", { type: "radio", name: "theme", value, checked: theme.choice === value, onchange: () => theme.choose(value) }), h("span", label));
	const old = h("input", { id: "old-password", type: "password", autocomplete: "current-password" });
	const fresh = h("input", { id: "new-password", type: "password", autocomplete: "new-password" });
	const notify = h("input", { type: "checkbox", checked: notifier.wanted, onchange: async () => (notify.checked = await notifier.want(notify.checked)) });
	const dialog = open(
		"Settings",
		h("section", h("h3", "Look"), h("div.choices", { role: "radiogroup", "aria-label": "Look" }, choose("system", "As the system"), choose("light", "Light"), choose("dark", "Dark"))),
		notifier.possible ? h("section", h("label.check", notify, h("span", "Tell me of mentions and private messages while I look elsewhere"))) : null,
		h(
			"section",
			h("h3", "Sessions"),
			list,
			h(
				"div.buttons",
				h("button", { onclick: () => leave(false) }, "Log out here"),
				h("button.danger", { onclick: () => leave(true) }, "Log out everywhere"),
			),
		),
		h(
			"details",
			h("summary", "Change the password"),
			form(
				async () => {
					await client.request({ type: "password", old: old.value, new: fresh.value });
					old.value = fresh.value = "";
					store.tell("The password is changed. All other sessions have ended.");
					dialog.close();
				},
				row("The present one", old),
				row("The new one", fresh, reveal(fresh)),
				h("p.hint", "All other sessions end."),
				h("div.buttons", h("button.primary", { type: "submit" }, "Change it")),
			),
		),
	);
	const leave = async (everywhere) => {
		const waiting = client.outbox.entries.length;
		if (waiting && !confirm(`${waiting} of your messages are not sent yet and would be lost. Log out all the same?`)) return;
		try {
			await client.logout(everywhere);
		} catch {
			/* it is forgotten here in any case */
		}
		dialog.close();
	};
	client
		.request({ type: "sessions" })
		.then(({ data }) => list.replaceChildren(...data.map((each) => session(store, each))))
		.catch((error) => list.replaceChildren(h("li", error.message)));
}

function session(store, { session, client, address, created, seen, online, current }) {
	const when = online ? "online now" : `last seen ${ago(seen)}`;
	const end = async () => {
		button.disabled = true;
		try {
			await store.client.endSession(session);
			row.replaceWith(h("li.hint", { role: "status" }, `The session of ${client} has ended.`));
		} catch (error) {
			button.disabled = false;
			store.tell(error.message, "warning");
		}
	};
	const button = h("button.danger", { "aria-label": `End the session of ${client} at ${address}`, onclick: end }, "End");
	const text = h("div.what", h("b", client), current ? h("span.tag", "this one") : null, h("span.detail", `${address} · ${when} · since ${ago(created)}`));
	const row = h("li", { class: current ? "current" : "" }, text, current ? null : button);
	return row;
}
