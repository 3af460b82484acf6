// How long to wait before the next attempt: twice as long each time up to half a minute, spread at random so that a thousand browsers
// do not come back in the same moment, and never earlier than the server asked for.

const FIRST_S = 0.5;
const LONGEST_S = 30;

export function delay(attempt, retryAfter = null, random = Math.random) {
	const most = Math.min(LONGEST_S, FIRST_S * 2 ** Math.min(attempt, 10));
	const spread = most * (0.5 + random() / 2);
	return retryAfter === null ? spread : Math.min(300, retryAfter) + spread / 2;
}
