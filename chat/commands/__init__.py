"""The commands: what people may type behind the prefix. `registry` says how one is added; one file for each family."""
