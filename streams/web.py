"""The worker's small web server: probes, metrics and thresholds in force, nothing that changes anything."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from schemas.thresholds import ThresholdUpdate
from streams.health import Health
from streams.metrics import exposition

Links = Callable[[], Sequence[ThresholdUpdate]]


def make_app(health: Health, links: Links = tuple) -> web.Application:
    """`/healthz`, `/readyz`, `/startupz` (200 or 503, with each part's state as JSON) and `/metrics`.

    `/thresholds` gives `links` as a JSON list: the signed link of each threshold that was ever moved.
    """

    def probe(passes: Callable[[], bool]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_: web.Request) -> web.Response:
            ok = passes()
            body = {"status": health.word(ok), "parts": health.report()}
            return web.json_response(body, status=200 if ok else 503)

        return answer

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def thresholds(_: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(links()), content_type="application/json")

    app = web.Application()
    app.router.add_get("/healthz", probe(health.is_alive))
    app.router.add_get("/readyz", probe(health.is_ready))
    app.router.add_get("/startupz", probe(health.has_started))
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/thresholds", thresholds)
    return app


@asynccontextmanager
async def serving(health: Health, host: str, port: int, links: Links = tuple) -> AsyncIterator[web.AppRunner]:
    """Serve; `runner.addresses` tells the port where `port` is 0.

    Raises:
        OSError: the address is taken.
    """
    runner = web.AppRunner(make_app(health, links), access_log=None)
    try:
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        yield runner
    finally:
        await runner.cleanup()
