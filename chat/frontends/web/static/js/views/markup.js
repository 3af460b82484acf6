// The tree of `state/markdown.js` as DOM nodes.

import { inline, parse } from "../state/markdown.js";
import { h } from "./dom.js";

const TAGS = { bold: "strong", italic: "em", code: "code", quote: "blockquote", paragraph: "p" };

// `highlight(text)` may split plain text into nodes, for mentions.
export function markup(text, highlight = (plain) => [plain]) {
	return parse(text).map((block) => node(block, highlight));
}

export function oneLine(text) {
	return inline(text.replace(/\s+/g, " ").slice(0, 200)).map((part) => node(part, (plain) => [plain]));
}

// What a server says, as a sentence.
export function sentence(text) {
	return `${text.charAt(0).toUpperCase()}${text.slice(1).replace(/\.$/, "")}.`;
}

function node(part, highlight) {
	if (typeof part === "string") return highlight(part);
	switch (part.type) {
		case "link":
			return h("a", { href: part.url, target: "_blank", rel: "noopener noreferrer" }, part.url);
		case "block":
			return h("pre", h("code", part.text));
		case "code":
			return h("code", part.text);
		default:
			return h(TAGS[part.type], {}, part.children.map((child) => node(child, highlight)));
	}
}
