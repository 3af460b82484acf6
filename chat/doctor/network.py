"""The lock on the data folder, the ports, and whether the server behind them answers."""

import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Final

from chat.admin import client
from chat.background import holder
from chat.config import Config, split_address
from chat.doctor.finding import Finding, advice, fine, span, wrong
from chat.transport.door import bind

ANSWER_S: Final = 5.0
ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def server(config: Config) -> Iterator[Finding]:
    running = holder(config.lock_file)
    if running is None:
        stale = config.pid_file.exists()
        left = ": a pid file of one that was killed lies there, which is harmless" if stale else ""
        yield fine("server", f"none runs here{left}")
        return
    try:
        found = client.ask(config, "figures", {}, answer_s=ANSWER_S)
    except (OSError, client.Refused) as error:
        todo = "its log says why (chat logs); chat restart helps if it hangs"
        yield wrong("server", f"pid {running.pid} runs and does not answer at {client.socket_of(config)}: {error}", todo)
        return
    if found["problems"]:
        yield wrong("server", f"pid {running.pid} runs, but " + "; ".join(found["problems"]), "see the other findings, and its log")
    elif found["complaints"]:
        yield advice("server", f"pid {running.pid} runs, but " + "; ".join(found["complaints"]), "configure a free port, or end who has it")
    else:
        since = span(time.time() - running.started_s) if running.started_s else "some time"
        yield fine("server", f"pid {running.pid} runs, for {since} now, and would store a message")


def ports(config: Config) -> Iterator[Finding]:
    running = holder(config.lock_file)
    if running is not None:
        for address in running.addresses:
            yield _knock(address)
        return
    for listen in config.listen:
        try:
            for sock in bind(listen.address):
                sock.close()
        except (OSError, ValueError) as error:
            yield wrong("port", f"{listen.address}: {error}", _why(listen.address))
        else:
            yield fine("port", f"{listen.address} is free")


def _knock(address: str) -> Finding:
    """Say hello, as a client does."""
    host, port = split_address(address)
    host = ANYWHERE.get(host, host)
    try:
        with socket.create_connection((host, port), timeout=ANSWER_S) as sock:
            sock.settimeout(ANSWER_S)
            sock.sendall(b'{"type":"hello","protocol":1,"client":"chat doctor"}\n')
            answer = json.loads(sock.makefile("rb").readline() or b"{}")
    except (OSError, ValueError) as error:
        return wrong("port", f"{address} does not answer: {error}", "is there a firewall between? The server's log may say more")
    if answer.get("type") == "welcome":
        return fine("port", f"{address} answers as {answer.get('server')}")
    if answer.get("code") == "tls_required":
        return fine("port", f"{address} answers, and wants TLS")
    return advice("port", f"{address} answers with {str(answer)[:80]}", "is it this server?")


def _why(address: str) -> str:
    port = split_address(address)[1]
    if 0 < port < 1024 and os.geteuid() != 0:
        return "ports below 1024 need a right: choose another (listen.address), or AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit"
    return f"see who has it (ss -ltnp 'sport = :{port}'), or choose another (listen.address)"
