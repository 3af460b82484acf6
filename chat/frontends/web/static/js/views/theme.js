// Light or dark: as the system has it, or as was chosen here.

export class Theme {
	constructor(keeper) {
		this.keeper = keeper;
		this.choice = keeper.preference("theme", "system");
		this.#apply();
	}

	choose(choice) {
		this.choice = choice;
		this.keeper.savePreference("theme", choice);
		this.#apply();
	}

	#apply() {
		if (this.choice === "system") delete document.documentElement.dataset.theme;
		else document.documentElement.dataset.theme = this.choice;
	}
}
