"""A real HTTP receiver that can hang, refuse, fail and drop connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web


class Receiver:
    """Behaves as `script` says, one word a message, and well after its end. Keeps what it took."""

    def __init__(self) -> None:
        self.url = ""
        self.base = ""  # of an Alertmanager's API, which ends in `/api/v2/alerts`
        self.script: list[str | web.Response] = []
        self.seen = 0
        self.delay = 0.0  # seconds before it takes one
        self.taken: list[tuple[dict[str, Any], bytes, dict[str, str]]] = []
        self.changed = asyncio.Condition()
        self.released = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        behaviour = self.script.pop(0) if self.script else "ok"
        async with self.changed:
            self.seen += 1
            self.changed.notify_all()
        if behaviour == "hang":
            await self.released.wait()
            return web.Response()
        if behaviour == "drop":
            assert request.transport
            request.transport.close()
            return web.Response()
        if behaviour != "ok":
            assert isinstance(behaviour, web.Response)
            return behaviour
        await asyncio.sleep(self.delay)
        async with self.changed:
            self.taken.append((msgspec.json.decode(body), body, dict(request.headers)))
            self.changed.notify_all()
        return web.Response()

    def statuses(self) -> list[tuple[str, str]]:
        """(trigger_id, status) of all alerts taken, in order; a channel's own have no trigger."""
        return [
            (entry["labels"].get("trigger_id", ""), entry["status"])
            for message, _, _ in self.taken
            for entry in message["alerts"]
        ]

    async def wait_seen(self, number: int) -> None:
        async with self.changed, asyncio.timeout(60):
            await self.changed.wait_for(lambda: self.seen >= number)

    async def wait_taken(self, number: int) -> None:
        async with self.changed, asyncio.timeout(60):
            await self.changed.wait_for(lambda: len(self.statuses()) >= number)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    for path in ("/hook", "/api/v2/alerts"):
        app.router.add_post(path, receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    receiver.base = f"http://{host}:{port}"
    receiver.url = f"{receiver.base}/hook"
    try:
        yield receiver
    finally:
        receiver.released.set()
        await runner.cleanup()
