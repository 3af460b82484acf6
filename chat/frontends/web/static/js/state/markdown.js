// A modest Markdown, as data: bold, italic, code, blocks of code, quotes, links. What it does not know is text.
//
// parse("*hi* `x`") → [{type: "paragraph", children: [{type: "italic", children: ["hi"]}, " ", {type: "code", text: "x"}]}]
//
// Its time is linear but for nested emphasis, whose depth is bounded. The view makes DOM nodes of it; nothing ever becomes HTML.

const DEPTH = 4;
const LINK = /^https?:\/\/[^\s<>"'`\u0000-\u0020\u200e\u200f\u202a-\u202e\u2066-\u2069]+/i;
const WORD = /[\p{L}\p{N}_]/u;

export function parse(text) {
	const blocks = [];
	const lines = text.split("\n");
	for (let n = 0; n < lines.length; ) {
		if (/^\s*```/.test(lines[n])) {
			const end = lines.findIndex((line, m) => m > n && /^\s*```\s*$/.test(line));
			if (end > n) {
				blocks.push({ type: "block", text: lines.slice(n + 1, end).join("\n") });
				n = end + 1;
				continue;
			}
		}
		const quoted = /^>\s?/.test(lines[n]);
		const from = n;
		for (n++; n < lines.length && /^>\s?/.test(lines[n]) === quoted && !/^\s*```/.test(lines[n]); n++);
		const part = lines.slice(from, n);
		if (quoted) blocks.push({ type: "quote", children: inline(part.map((line) => line.replace(/^>\s?/, "")).join("\n")) });
		else if (part.some((line) => line.trim())) blocks.push({ type: "paragraph", children: inline(part.join("\n").replace(/^\n+|\n+$/g, "")) });
	}
	return blocks;
}

export function inline(text, depth = 0) {
	const nodes = [];
	let plain = "";
	const push = (node) => {
		if (plain) nodes.push(plain);
		plain = "";
		nodes.push(node);
	};
	for (let at = 0; at < text.length; ) {
		const char = text[at];
		if (char === "\\" && /[*_`\\>]/.test(text[at + 1] ?? "")) {
			plain += text[at + 1];
			at += 2;
			continue;
		}
		if (char === "`") {
			const end = text.indexOf("`", at + 1);
			if (end > at + 1) {
				push({ type: "code", text: text.slice(at + 1, end) });
				at = end + 1;
				continue;
			}
		} else if ((char === "*" || char === "_") && depth < DEPTH) {
			const found = emphasis(text, at, char);
			if (found) {
				push({ type: found.marker.length === 2 ? "bold" : "italic", children: inline(found.inside, depth + 1) });
				at = found.end;
				continue;
			}
		} else if ((char === "h" || char === "H") && !WORD.test(text[at - 1] ?? "")) {
			const url = link(text.slice(at, at + 2048));
			if (url) {
				push({ type: "link", url });
				at += url.length;
				continue;
			}
		}
		plain += char;
		at += 1;
	}
	if (plain) nodes.push(plain);
	return nodes;
}

// **bold**, *italic*, _italic_: no blank inside at either end, and _ only around whole words, so that snake_case stays.
function emphasis(text, at, char) {
	const marker = text[at + 1] === char ? char + char : char;
	const from = at + marker.length;
	if (!text[from] || /\s/.test(text[from]) || (char === "_" && WORD.test(text[at - 1] ?? ""))) return null;
	for (let end = text.indexOf(marker, from + 1); end > 0 && end - from < 4096; end = text.indexOf(marker, end + 1)) {
		const tail = end + marker.length;
		if (/\s/.test(text[end - 1])) continue;
		if (marker.length === 1 && (text[tail] === char || text[end - 1] === char)) continue;
		if (char === "_" && WORD.test(text[tail] ?? "")) continue;
		return { marker, inside: text.slice(from, end), end: tail };
	}
	return null;
}

// The address at the beginning of `text`, without the punctuation of the sentence around it; or null.
function link(text) {
	let url = LINK.exec(text)?.[0];
	if (!url) return null;
	for (;;) {
		const last = url.at(-1);
		if (/[.,;:!?*_~]/.test(last) || (last === ")" && count(url, ")") > count(url, "("))) url = url.slice(0, -1);
		else break;
	}
	return safe(url) ? url : null;
}

export function safe(url) {
	try {
		const { protocol, hostname, username, password } = new URL(url);
		return (protocol === "http:" || protocol === "https:") && hostname !== "" && !username && !password;
	} catch {
		return false;
	}
}

function count(text, char) {
	return text.split(char).length - 1;
}
