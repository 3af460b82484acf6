"""Moves frames between a peer and the server. Knows no chat: neither rooms nor sessions nor what a frame says."""
