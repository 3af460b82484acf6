"""The bundled client: a Trio library (`chat.client.client`), the line console on it, and the scripts' commands.

*Source*: `chat/protocol/README.md` for the wire; the theory of exact delivery is in `delivery.py`, of never losing a text in `outbox.py`.
"""

from chat.client.calls import Disconnected
from chat.client.client import Client
from chat.client.delivery import Hidden, Missing
from chat.client.dial import PinChanged, UnknownHost, UnknownServer
from chat.client.keeper import SessionLost
from chat.client.opening import open_client
from chat.client.servers import ClientStore
from chat.client.target import Target, parse_target

__all__ = [
    "Client",
    "ClientStore",
    "Disconnected",
    "Hidden",
    "Missing",
    "PinChanged",
    "SessionLost",
    "Target",
    "UnknownHost",
    "UnknownServer",
    "open_client",
    "parse_target",
]
