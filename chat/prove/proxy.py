"""A road between a client and the server that can become a black hole: it goes on to look open, and nothing comes through.

A `Tunnel` is one connection through it. While it is stalled, its bytes stay where they are, as in a tunnel without reception; then it is
either dropped (RST to both ends, the bytes are lost) or released (they arrive after all, much too late).
"""

import contextlib
import socket
import struct

import trio

from chat.prove.wires import ENDED

BACKLOG = 64


class Tunnel:
    def __init__(self, client: trio.SocketStream, server: trio.SocketStream) -> None:
        self._ends = client, server
        self._open = trio.Event()
        self._open.set()

    def stall(self) -> None:
        self._open = trio.Event()

    def release(self) -> None:
        self._open.set()

    def drop(self) -> None:
        for end in self._ends:
            with contextlib.suppress(*ENDED):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.socket.close()

    async def run(self) -> None:
        client, server = self._ends
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._carry, client, server)
            nursery.start_soon(self._carry, server, client)

    async def _carry(self, here: trio.SocketStream, there: trio.SocketStream) -> None:
        try:
            while data := await here.receive_some(65536):
                await self._open.wait()
                await there.send_all(data)
            await self._open.wait()
            await there.send_eof()
        except ENDED:
            self.drop()


class Proxy:
    """Listens on a port of its own; each tunnel leads to *port* of this machine."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.port = 0
        self._tunnels: dict[tuple[str, int], Tunnel] = {}  # by the client's address

    def tunnel(self, client: tuple[str, int]) -> Tunnel | None:
        """None: there is none any more."""
        return self._tunnels.get(client)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.socket.socket() as listener:
            await listener.bind(("127.0.0.1", 0))
            listener.listen(BACKLOG)
            self.port = listener.getsockname()[1]
            task_status.started()
            async with trio.open_nursery() as nursery:
                while True:
                    sock, address = await listener.accept()
                    nursery.start_soon(self._serve, trio.SocketStream(sock), tuple(address[:2]))

    async def _serve(self, client: trio.SocketStream, address: tuple[str, int]) -> None:
        out = trio.socket.socket()
        try:
            await out.bind((address[0], 0))
            await out.connect(("127.0.0.1", self._to))
        except OSError:  # the server is down
            out.close()
            client.socket.close()
            return
        tunnel = self._tunnels[address] = Tunnel(client, trio.SocketStream(out))
        try:
            await tunnel.run()
        finally:
            del self._tunnels[address]
            tunnel.drop()
