// How a person is shown: the colour of the name, and a square with its first letter.

import { h } from "./dom.js";

const COLOR = /^#[0-9a-f]{6}$/i;

// The hue is what somebody chose, else one of the name, as in the terminal (chat/colors.py); its lightness is the style sheet's business.
export function paint(node, name, color) {
	if (COLOR.test(color ?? "")) {
		node.style.setProperty("--own", color);
	} else {
		node.style.setProperty("--hue", hue(name));
		node.classList.add("hued");
	}
	node.classList.add("painted");
	return node;
}

export function hue(name) {
	let hash = 2166136261;
	for (const char of name.normalize("NFKC").toLowerCase()) hash = Math.imul(hash ^ char.codePointAt(0), 16777619);
	return (hash >>> 0) % 360;
}

export function avatar(name, color, className = "avatar") {
	return paint(h("span", { class: className, "aria-hidden": "true" }, [...name][0]?.toUpperCase() ?? "?"), name, color);
}

// Where it is not known, nothing.
export function presence(online) {
	return online === undefined ? null : h("span", { class: online ? "dot on" : "dot" }, h("span.unseen", online ? "online" : "away"));
}
