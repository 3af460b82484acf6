"""What the rooms keep about commands: which there are in a channel, and what plugins store."""
