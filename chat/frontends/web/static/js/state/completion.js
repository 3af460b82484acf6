// What could stand where somebody types: commands with their arguments, people, channels. Pure: text and caret in, candidates out.
//
// suggest() → null, or {from, to, title, candidates: [{insert, label, detail}], command, argument}
// `from` to `to` is what a candidate replaces; `argument` is the index of the command's argument that is being typed.

const SHOWN = 8;

export function suggest(text, caret, { prefix, commands, people, channels }) {
	const before = text.slice(0, caret);
	if (before.startsWith(prefix) && !before.includes("\n")) return forCommand(before, prefix, commands, people, channels);
	const mention = /(?:^|[\s(])@([\p{L}\p{N}_.-]*)$/u.exec(before);
	if (mention) return some({ from: caret - mention[1].length - 1, to: caret, title: "People", candidates: named(people, mention[1], "@") });
	return null;
}

function forCommand(before, prefix, commands, people, channels) {
	const line = before.slice(prefix.length);
	const [, name, blank] = /^(\S*)(\s*)/.exec(line);
	if (!blank) {
		const wanted = fold(name);
		const fits = commands
			.filter((each) => [each.name, ...(each.aliases ?? [])].some((one) => one.startsWith(wanted) || (wanted && one.includes(`-${wanted}`))))
			.sort((a, b) => Number(b.name.startsWith(wanted)) - Number(a.name.startsWith(wanted)) || a.name.localeCompare(b.name));
		const candidates = fits.map((each) => ({ insert: `${prefix}${each.name}${each.arguments.length ? " " : ""}`, label: each.name, usage: each.usage.slice(each.name.length).trim(), detail: each.description }));
		return some({ from: 0, to: before.length, title: "Commands", candidates });
	}
	const command = commands.find((each) => each.name === fold(name) || each.aliases?.includes(fold(name)));
	if (!command?.arguments.length) return null;
	const { index, word, start } = typing(line, command.arguments.length);
	const argument = command.arguments[index];
	const from = prefix.length + start;
	let candidates = [];
	if (argument.choices) candidates = argument.choices.filter((choice) => fold(choice).startsWith(fold(word))).map((choice) => ({ insert: `${choice} `, label: choice }));
	else if (argument.kind === "user") candidates = named(people, word.replace(/^@/, ""), "", " ");
	else if (argument.kind === "channel") candidates = named(channels, word.replace(/^#/, ""), "", " ");
	else if (argument.kind === "command") candidates = named(commands, word, "");
	if (candidates.length === 1 && candidates[0].label === word) candidates = [];
	return { from, to: before.length, title: command.name, candidates: candidates.slice(0, SHOWN * 4), command, argument: index };
}

// Which argument the end of `line` is in, and its word so far. The last argument takes all that remains.
function typing(line, count) {
	const words = /\s+("(?:[^"\\]|\\.)*"?|\S*)/gy;
	words.lastIndex = /^\S*/.exec(line)[0].length;
	let index = -1;
	let word = "";
	let start = line.length;
	for (let match; index < count - 1 && (match = words.exec(line)); ) {
		index += 1;
		word = match[1];
		start = match.index + match[0].length - word.length;
		if (!match[0]) break;
	}
	return { index: Math.max(0, Math.min(index, count - 1)), word, start };
}

function named(things, typed, sigil, after = " ") {
	const wanted = typed.toLocaleLowerCase();
	return things
		.filter(({ name }) => name.toLocaleLowerCase().startsWith(wanted))
		.slice(0, SHOWN * 4)
		.map(({ name, description, detail }) => ({ insert: `${sigil}${name}${after}`, label: `${sigil}${name}`, detail: detail ?? description }));
}

function some(found) {
	return found.candidates.length ? { ...found, candidates: found.candidates.slice(0, SHOWN * 4), command: null, argument: -1 } : null;
}

function fold(name) {
	return name.toLowerCase().replaceAll("_", "-");
}
