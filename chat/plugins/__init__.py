"""Plugins that chat comes with, made to be read: each uses only `chat.plugin`, as yours would.

`roll` shows arguments, saying something, and asking somebody; `poll` asks a whole channel; `remind` keeps things in its store and does
something by itself. Copy one into the folder ``plugins`` under its own name, and your copy takes its place.
"""
