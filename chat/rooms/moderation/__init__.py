"""Moderation: who may not come, speak or stay and until when, what is told of it, and the log of it."""
