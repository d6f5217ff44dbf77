"""Against the real Alertmanager (Debian package `prometheus-alertmanager`), on free ports."""

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from streams.notifiers.alertmanager import AlertmanagerNotifier
from streams.notifiers.base import Refused, RetryLater
from tests.streams.notifiers.alerts import PAYLOADS, alert, hostile
from tests.streams.notifiers.receiver import Receiver

BINARY = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
pytestmark = pytest.mark.skipif(
    BINARY is None, reason="no Alertmanager here: `apt-get install prometheus-alertmanager` (or its binary on PATH)"
)


class Server:
    """One Alertmanager, and its API."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def get(self, path: str) -> Any:
        async with self._session.get(f"{self.url}/api/v2/{path}") as answer:
            assert answer.status == 200
            return await answer.json()

    async def alerts(self) -> dict[str, dict[str, Any]]:
        """What it holds as active, by trigger_id."""
        return {entry["labels"]["trigger_id"]: entry for entry in await self.get("alerts")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def server(tmp_path: Path, receiver: Receiver) -> AsyncIterator[Server]:
    """Routes everything, grouped by category, to the receiver."""
    config = tmp_path / "alertmanager.yml"
    config.write_text(
        "route: {receiver: hook, group_by: [category], group_wait: 100ms, group_interval: 1s}\n"
        f"receivers: [{{name: hook, webhook_configs: [{{url: '{receiver.url}', send_resolved: true}}]}}]\n"
    )
    assert BINARY
    url = f"http://127.0.0.1:{free_port()}"
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            BINARY, f"--config.file={config}", f"--storage.path={tmp_path / 'data'}",
            f"--web.listen-address={url.removeprefix('http://')}", "--cluster.listen-address=",
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as session:
            async with asyncio.timeout(60):
                while not await ready(session, url):
                    assert process.returncode is None, (tmp_path / "log").read_text()
                    await asyncio.sleep(0.05)
            yield Server(url, session)
    finally:
        process.terminate()
        await process.wait()


async def ready(session: aiohttp.ClientSession, url: str) -> bool:
    with contextlib.suppress(aiohttp.ClientError):
        async with session.get(f"{url}/-/ready") as answer:
            return answer.status == 200
    return False


@pytest.fixture
async def notifier(server: Server) -> AsyncIterator[AlertmanagerNotifier]:
    made = AlertmanagerNotifier(server.url + "/")
    yield made
    await made.close()


async def test_start_resend_and_resolve(server: Server, notifier: AlertmanagerNotifier, receiver: Receiver) -> None:
    await notifier.send([alert("a"), alert("b")])
    held = await server.alerts()
    assert set(held) == {"a", "b"}
    first = held["a"]
    assert first["labels"] == {
        "alertname": "known_trigger", "category": "cost_escalation", "severity": "critical", "trigger_id": "a",
    }  # fmt: skip
    assert first["annotations"]["summary"] == alert().summary
    assert datetime.fromisoformat(first["startsAt"]) == alert().starts_at
    assert first["status"]["state"] in ("unprocessed", "active")
    await receiver.wait_taken(2)
    assert sorted(receiver.statuses()) == [("a", "firing"), ("b", "firing")]  # one group, one message

    await notifier.send([alert("a", count=50, sequence=2), alert("b")])
    again = (await server.alerts())["a"]
    assert again["fingerprint"] == first["fingerprint"]  # the same alert, held for longer
    assert again["endsAt"] > first["endsAt"]
    assert "50 findings" in again["annotations"]["description"]

    await notifier.send([alert("a", "resolved", 3)])
    assert set(await server.alerts()) == {"b"}
    await receiver.wait_taken(4)
    assert sorted(receiver.statuses()[2:]) == [("a", "resolved"), ("b", "firing")]


async def test_it_is_held_for_some_missed_resends(server: Server) -> None:
    notifier = AlertmanagerNotifier(server.url, resend_seconds=30.0)
    before = datetime.now(UTC)
    await notifier.send([alert("a")])
    await notifier.close()
    ends_at = datetime.fromisoformat((await server.alerts())["a"]["endsAt"])
    assert timedelta(seconds=119) <= ends_at - before <= timedelta(seconds=180)


async def test_identities_of_one_name_are_grouped_by_alertmanager(
    server: Server, notifier: AlertmanagerNotifier
) -> None:
    await notifier.send([alert("a"), alert("b"), alert("c", category="pipeline", labels={
        "alertname": "unjudged", "category": "pipeline", "trigger_id": "c"})])  # fmt: skip
    groups = await server.get("alerts/groups")
    assert sorted((group["labels"]["category"], len(group["alerts"])) for group in groups) == [
        ("cost_escalation", 2),
        ("pipeline", 1),
    ]


async def test_hostile_names_are_accepted_and_inert(server: Server, notifier: AlertmanagerNotifier) -> None:
    await notifier.send([hostile(payload) for payload in PAYLOADS])
    held = await server.get("alerts")
    assert len(held) == len(PAYLOADS)
    for entry in held:
        for value in (*entry["labels"].values(), *entry["annotations"].values()):
            assert value.isprintable()
            assert not any(payload in value for payload in PAYLOADS)


async def test_what_it_says_no_to(server: Server, notifier: AlertmanagerNotifier) -> None:
    with pytest.raises(Refused):  # an alert that ends before it starts
        await notifier.send([alert("a", "resolved", ends_at=alert().starts_at - timedelta(hours=1))])
    gone = AlertmanagerNotifier(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(RetryLater):
        await gone.send([alert("a")])
    await gone.close()
