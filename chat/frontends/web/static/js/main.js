// Puts the parts together: the client (protocol/), what is known (state/), what is seen (views/).

import { Client } from "./protocol/client.js";
import { Keeper, Memory } from "./protocol/keeper.js";
import { Store } from "./state/store.js";
import { App } from "./views/app.js";
import { Notifier } from "./views/notifier.js";
import { Status, Toasts } from "./views/status.js";
import { Theme } from "./views/theme.js";
import { Welcome } from "./views/welcome.js";

function storage(name) {
	try {
		window[name].getItem("");
		return window[name];
	} catch {
		return new Memory(); // forbidden: it works, until a reload
	}
}

const keeper = new Keeper(storage("sessionStorage"), storage("localStorage"));
const theme = new Theme(keeper);
const url = new URL("ws", location.href);
url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
url.hash = url.search = "";
const client = new Client({ url: url.href, keeper });
const store = new Store(client, { looking: () => document.visibilityState === "visible" && document.hasFocus() });
const status = new Status(client);
const notifier = new Notifier(store, keeper, (conv) => app.show(conv));
const app = new App(store, { theme, notifier, status, keeper });
const welcome = new Welcome(client, (request, device) => client.open(request, device));
const place = document.getElementById("page");
document.body.append(new Toasts(store).element);

// The invite is taken out of the address, so that nobody sees it over one's shoulder or in the history.
function takeInvite() {
	const invite = new URLSearchParams(location.hash.slice(1)).get("invite") ?? "";
	if (invite) history.replaceState(null, "", location.pathname);
	return invite;
}

function showWelcome(options) {
	place.replaceChildren(welcome.element);
	document.title = "chat";
	welcome.start(options);
	client.introduce().catch(() => (welcome.problem.textContent ||= "The server cannot be reached at the moment."));
}

function showApp() {
	if (!app.element.isConnected) place.replaceChildren(app.element);
}

client.on("opened", () => {
	showApp();
	app.begin();
});
client.on("ended", (why) => showWelcome({ name: client.user ?? "", why }));

const wake = () => {
	client.nudge();
	store.read();
};
addEventListener("online", wake);
addEventListener("focus", () => store.read());
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && wake());
addEventListener("pageshow", (event) => event.persisted && wake());
addEventListener("hashchange", () => {
	const invite = takeInvite();
	if (invite && client.state === "out") showWelcome({ invite });
});

const invite = takeInvite();
if (client.remembered) {
	showApp();
	if (invite) store.tell(`You are logged in as ${client.remembered.user} already.`);
	client.resume();
} else showWelcome({ invite });

document.body.classList.add("ready");
