// Tells whoever listens. A listener that throws is reported and does not stop the others.

export class Emitter {
	#listeners = new Map();

	on(name, listener) {
		if (!this.#listeners.has(name)) this.#listeners.set(name, new Set());
		this.#listeners.get(name).add(listener);
	}

	emit(name, ...values) {
		for (const listener of this.#listeners.get(name) ?? []) {
			try {
				listener(...values);
			} catch (error) {
				console.error(error);
			}
		}
	}
}
