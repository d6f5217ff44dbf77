"""Health and its probes: what makes a worker restart, what only takes it out of rotation, and what does neither."""

import pytest
from aiohttp.test_utils import TestClient, TestServer, unused_port

from streams import web
from streams.health import FAILED_SECONDS, STUCK_SECONDS, Health


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(["detect"], clock)


def test_no_progress_with_lag_is_dead(health: Health, clock: Clock) -> None:
    health.progress("detect")
    health.lag("detect", 5)
    clock.now += STUCK_SECONDS
    health.lag("detect", 9)
    assert health.is_alive()
    clock.now += 0.1
    assert not health.is_alive()
    health.progress("detect")
    assert health.is_alive()


def test_idle_is_alive_for_ever(health: Health, clock: Clock) -> None:
    for _ in range(100):
        health.lag("detect", 0)
        clock.now += 60
        assert health.is_alive()


def test_a_lane_that_stops_to_report_is_dead(health: Health, clock: Clock) -> None:
    health.lag("detect", 0)
    clock.now += STUCK_SECONDS + 1
    assert not health.is_alive()


def test_parts_without_lag_are_never_stuck(health: Health, clock: Clock) -> None:
    health.ready("catalogue", True)
    clock.now += 10 * STUCK_SECONDS
    assert health.is_alive()


def test_one_stuck_lane_is_enough(health: Health, clock: Clock) -> None:
    health.lag("history", 7)
    clock.now += STUCK_SECONDS + 1
    health.lag("detect", 0)
    health.progress("detect")
    assert not health.is_alive()
    assert health.report()["history"]["stuck"] is True
    assert health.report()["detect"]["stuck"] is False


def test_ready_when_all_parts_are(health: Health) -> None:
    assert not health.is_ready()
    health.ready("catalogue", False)
    health.ready("detect", True)
    assert not health.is_ready()
    health.ready("catalogue", True)
    assert health.is_ready()
    health.ready("detect", False)  # a rebalance: partitions are loading again
    assert not health.is_ready()


def test_nothing_expected_and_nothing_reported_is_not_ready(clock: Clock) -> None:
    assert not Health(clock=clock).is_ready()


def test_failed_judging_is_not_ready_and_alive(health: Health, clock: Clock) -> None:
    health.ready("detect", True)
    health.failed("detect", ValueError("text of an event"))
    health.progress("detect")
    assert not health.is_ready()
    assert health.is_alive()
    assert health.report()["detect"]["error"] == "ValueError"
    clock.now += FAILED_SECONDS + 1
    assert health.is_ready()
    assert health.report()["detect"]["error"] == ""


def test_an_outage_shorter_than_the_limit_changes_nothing(health: Health, clock: Clock) -> None:
    health.ready("detect", True)
    health.lag("detect", 3)
    clock.now += 60  # brokers down: no progress, the lane turns
    health.lag("detect", 3)
    assert health.is_alive()
    assert health.is_ready()


def test_started_stays_started(health: Health) -> None:
    assert not health.has_started()
    health.ready("detect", True)
    assert health.has_started()
    health.ready("detect", False)
    assert health.has_started()


async def test_probes(health: Health, clock: Clock) -> None:
    async with TestClient(TestServer(web.make_app(health))) as client:

        async def status(path: str, otherwise: str = "failing") -> int:
            async with client.get(path) as response:
                body = await response.json()
                assert body["status"] == ("ok" if response.status == 200 else otherwise)
                assert set(body["parts"]) == {"detect"}
                return response.status

        probes = ("/healthz", "/readyz", "/startupz")
        assert [await status(path, "starting") for path in probes] == [200, 503, 503]
        health.ready("detect", True)
        assert [await status(path) for path in probes] == [200, 200, 200]
        health.failed("detect", RuntimeError())
        health.lag("detect", 1)
        assert [await status(path) for path in probes] == [200, 503, 200]
        clock.now += STUCK_SECONDS + 1
        assert [await status(path) for path in probes] == [503, 200, 200]
        async with client.post("/healthz") as response:
            assert response.status == 405


async def test_metrics_are_served(health: Health) -> None:
    async with TestClient(TestServer(web.make_app(health))) as client, client.get("/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        assert "pointsman_build_info" in await response.text()


async def test_the_server_tells_its_port_and_refuses_a_taken_one(health: Health) -> None:
    port = unused_port()
    async with web.serving(health, "127.0.0.1", port) as runner:
        assert runner.addresses == [("127.0.0.1", port)]
        with pytest.raises(OSError, match=str(port)):
            async with web.serving(health, "127.0.0.1", port):
                pass
