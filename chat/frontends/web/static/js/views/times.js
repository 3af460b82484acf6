// Times and days in the reader's language and zone.

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "short" });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const dated = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long", year: "numeric" });

export const timeOf = clock.format;
export const fullTime = full.format;

export const dayKey = (ts) => new Date(ts).toDateString();

export function dayName(ts, now = Date.now()) {
	if (dayKey(ts) === dayKey(now)) return "Today";
	if (dayKey(ts) === dayKey(now - 86_400_000)) return "Yesterday";
	return new Date(ts).getFullYear() === new Date(now).getFullYear() ? weekday.format(ts) : dated.format(ts);
}

export function ago(ts, now = Date.now()) {
	const minutes = Math.round((now - ts) / 60_000);
	if (minutes < 1) return "just now";
	if (minutes < 60) return `${minutes} min ago`;
	if (minutes < 48 * 60) return `${Math.round(minutes / 60)} h ago`;
	return dated.format(ts);
}
