// DOM nodes from code. Text is always a text node; there is no way in for markup.

// `h("div.row.big", { id: "x" }, "text", node)`: the classes stand behind the tag, and the properties may be left out.
export function h(name, ...children) {
	const [tag, ...classes] = name.split(".");
	const node = document.createElement(tag);
	const properties = children[0]?.constructor === Object ? children.shift() : {};
	if (classes.length) node.className = classes.join(" ");
	if (tag === "button") node.type = "button"; // and not the one that sends a form
	for (const [name, value] of Object.entries(properties)) {
		if (value === null || value === undefined || value === false) continue;
		if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
		else if (name === "class") node.className = value;
		else if (name === "data") Object.assign(node.dataset, value);
		else if (name === "value") node.value = value;
		else node.setAttribute(name, value === true ? "" : value);
	}
	return fill(node, children);
}

// Other content for a node that stays, so that a click goes on over a change of what the button says.
export function fill(node, ...children) {
	node.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
	return node;
}

export const row = (label, input, ...more) => h("div.row", h("label", { for: input.id }, label), input, more);

// So that a slip in a new password is seen.
export const reveal = (input) => h("label.check", h("input", { type: "checkbox", onchange: (event) => (input.type = event.target.checked ? "text" : "password") }), "Show the password");

export const WORD = { autocomplete: "off", autocapitalize: "none", spellcheck: "false", required: true }; // of a field for a name

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
	menu: "M4 7h16M4 12h16M4 17h16",
	people: "M16 19v-1.5a3.5 3.5 0 0 0-3.5-3.5h-5A3.5 3.5 0 0 0 4 17.5V19M10 10.5a3.25 3.25 0 1 0 0-6.5 3.25 3.25 0 0 0 0 6.5ZM20 19v-1.5a3.5 3.5 0 0 0-2.6-3.4M15 4.1a3.25 3.25 0 0 1 0 6.3",
	plus: "M12 5v14M5 12h14",
	send: "M12 19V5M6 11l6-6 6 6",
	down: "M12 5v14M6 13l6 6 6-6",
	fold: "M6 9l6 6 6-6",
	close: "M6 6l12 12M18 6L6 18",
	reply: "M10 8L5 12.5 10 17M5.5 12.5H14a5 5 0 0 1 5 5V19",
	gear: "M4 8h9M17 8h3M4 16h3M11 16h9M15 6v4M9 14v4",
	leave: "M14 4h5v16h-5M10 8l-4 4 4 4M6 12h9",
};

export function icon(name) {
	const svg = document.createElementNS(SVG, "svg");
	svg.setAttribute("viewBox", "0 0 24 24");
	svg.setAttribute("aria-hidden", "true");
	svg.setAttribute("class", "icon");
	const path = document.createElementNS(SVG, "path");
	path.setAttribute("d", ICONS[name]);
	svg.append(path);
	return svg;
}

export function iconButton(name, label, onclick, extra = {}) {
	return h("button.icon-button", { "aria-label": label, title: label, onclick, ...extra }, icon(name));
}

// Make the children of `parent` be `nodes`, moving as little as possible: focus and selection stay.
export function arrange(parent, nodes) {
	let at = parent.firstChild;
	for (const node of nodes) {
		if (node === at) at = at.nextSibling;
		else parent.insertBefore(node, at);
	}
	while (at) {
		const next = at.nextSibling;
		at.remove();
		at = next;
	}
}

// Run `work` once for many calls, before the next frame; in a hidden page, which draws none, soon.
export function soon(work) {
	let waiting = false;
	const run = () => {
		waiting = false;
		work();
	};
	return () => {
		if (waiting) return;
		waiting = true;
		if (document.hidden) setTimeout(run, 60);
		else requestAnimationFrame(run);
	};
}
