"""Breaks connections between workers and Redis on demand: ``python -m chaos.proxy PORT``.

Forwards a port of its own, which it prints, to PORT; loopback only. SIGUSR1 cuts all connections at once; SIGUSR2 cuts
each at the next reply, which is lost although its command was carried out. Ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

#: Seconds for which replies are lost after SIGUSR2.
LOSING_S = 0.3


class Proxy:
    """Forwards connections to a port until a signal breaks them."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.writers: set[asyncio.StreamWriter] = set()
        self.losing_until = 0.0

    async def serve(self) -> None:
        """Forward until standard input closes."""
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._cut)
        loop.add_signal_handler(signal.SIGUSR2, self._lose)
        print(f"ready {server.sockets[0].getsockname()[1]}", flush=True)
        await loop.run_in_executor(None, sys.stdin.read)

    def _cut(self) -> None:
        for writer in self.writers:
            writer.transport.abort()

    def _lose(self) -> None:
        self.losing_until = asyncio.get_running_loop().time() + LOSING_S

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, far_writer}
        self.writers |= pair
        pumps = [self._pump(reader, far_writer), self._pump(far_reader, writer, is_reply=True)]
        tasks = [asyncio.ensure_future(pump) for pump in pumps]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        self.writers -= pair
        for one in pair:
            one.transport.abort()
        await asyncio.wait(tasks)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_reply: bool = False
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if is_reply and asyncio.get_running_loop().time() < self.losing_until:
                    return
                writer.write(data)
                await writer.drain()


if __name__ == "__main__":
    asyncio.run(Proxy(int(sys.argv[1])).serve())
