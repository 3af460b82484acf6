"""Commands that ask and wait: who asks whom, and when a question ends."""
