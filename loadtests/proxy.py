"""A network that can be cut: a TCP proxy on the side doors of the brokers (streams/embedded/kafka.py)."""

import asyncio
import contextlib
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

CHUNK = 1 << 16


class Proxy:
    """Passes bytes both ways until `cut`: then nothing, not even a reset, as if a cable were out."""

    def __init__(self, doors: Mapping[int, int]) -> None:
        """`doors`: port of 127.0.0.1 to listen at, and the port of 127.0.0.1 it leads to."""
        self._doors = doors
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._whole = asyncio.Event()
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def bootstrap(self) -> str:
        """Addresses for a client that is to go this way."""
        return ",".join(f"127.0.0.1:{door}" for door in self._doors)

    def cut(self) -> None:
        """Let nothing through, either way."""
        self._loop.call_soon_threadsafe(self._whole.clear)

    def heal(self) -> None:
        """Let all through; what was sent meanwhile arrives."""
        self._loop.call_soon_threadsafe(self._whole.set)

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Close everything."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> None:
        self._whole.set()
        for door, port in self._doors.items():
            self._servers.append(await asyncio.start_server(self._serve(port), "127.0.0.1", door))

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _serve(self, port: int):  # type: ignore[no-untyped-def]  # what start_server wants
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is None:  # a server runs it as one
                return
            self._connections.add(task)
            try:
                await self._whole.wait()
                with contextlib.suppress(OSError):
                    there, back = await asyncio.open_connection("127.0.0.1", port)
                    try:
                        await self._both_ways(reader, back, there, writer)
                    finally:
                        back.close()
            finally:
                self._connections.discard(task)
                writer.close()

        return serve

    async def _both_ways(
        self, reader: asyncio.StreamReader, back: asyncio.StreamWriter, there: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:  # fmt: skip
        """Until either side closes."""
        ways = [asyncio.create_task(self._pass(reader, back)), asyncio.create_task(self._pass(there, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(CHUNK):
            await self._whole.wait()
            sink.write(data)
            await sink.drain()
