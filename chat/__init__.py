"""chat: a chat daemon for your own machine. What was acknowledged is stored, delivered once and in one order."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("chat")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
