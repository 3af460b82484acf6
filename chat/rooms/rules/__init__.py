"""Rules of channels and of the server: what restricts writing and joining."""
