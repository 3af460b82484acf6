"""The configuration: what can be set (`sections`), how it is read (`load`), how it is explained (`manual`)."""

from chat.config.load import Loaded, find_file, load, read, rescue
from chat.config.sections import (
    Config,
    ConfigError,
    Limits,
    Listen,
    Log,
    Metrics,
    Passwords,
    Storage,
    Tls,
    split_address,
)

__all__ = [
    "Config",
    "ConfigError",
    "Limits",
    "Listen",
    "Loaded",
    "Log",
    "Metrics",
    "Passwords",
    "Storage",
    "Tls",
    "find_file",
    "load",
    "read",
    "rescue",
    "split_address",
]
