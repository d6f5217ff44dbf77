"""What a router judges by: verified links, the file of the last good ones, and never looser than its own limits."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web as aioweb
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from schemas.signatures import derived, linked
from schemas.thresholds import ThresholdScope, ThresholdUpdate, scope_of
from streams import web
from streams.gateways.thresholds import RouterThresholds
from streams.health import Health

KEY = derived("a key that only tests know", "updates")
FLAG = "novelty.flag"
SCOPE = ThresholdScope(detector="novelty")
OWN = scope_of(FLAG, "t1")
ROUTE = ThresholdScope(router_name="main", route="small", category="maths")
LIMITS = {FLAG: 0.999, "routing.guardrail": 0.0}


def chain(*changes: dict[str, Any], key: bytes = KEY) -> list[ThresholdUpdate]:
    links: list[ThresholdUpdate] = []
    for version, fields in enumerate(changes, 1):
        update = ThresholdUpdate(**{
            "update_id": f"u{version}", "scope": SCOPE, "parameter": FLAG, "old_value": 0.999, "new_value": 0.99,
            "direction": "tighten", "version": version, "mode": "active", "cause": "auto",
            "time": datetime(2026, 3, 2, tzinfo=UTC), **fields,
        })  # fmt: skip
        links.append(linked(update, links[-1].hash if links else "", key, "1"))
    return links


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "thresholds.json"


def client(file: Path, limits: dict[str, float] | None = None) -> RouterThresholds:
    return RouterThresholds(limits or LIMITS, {"1": KEY.hex()}, file)


def body(links: list[ThresholdUpdate]) -> bytes:
    return msgspec.json.encode(links)


def test_without_anything_the_limits_hold(file: Path) -> None:
    made = client(file)
    assert (made.value(FLAG), made.version) == (0.999, 0)
    with pytest.raises(KeyError):
        made.value("spend.rate")


def test_what_counts_is_used_and_survives_a_restart_without_anybody(file: Path) -> None:
    guardrail = {"scope": ROUTE, "parameter": "routing.guardrail", "old_value": 0.0, "new_value": 1.0}
    links = chain({}, {"mode": "proposed", "new_value": 0.5}, {"new_value": 0.98}, guardrail)
    made = client(file)
    assert made.take_all(body(links)) == 3
    again = client(file)
    for each in (made, again):
        assert (each.value(FLAG), each.value("routing.guardrail", ROUTE), each.version) == (0.98, 1.0, 4)
    assert again.value("routing.guardrail", ThresholdScope(router_name="other")) == 0.0


def test_a_tenants_own_value_counts_for_it_where_it_is_stricter_than_the_fleets(file: Path) -> None:
    made = client(file)
    *links, later = chain({"new_value": 0.98}, {"scope": OWN, "new_value": 0.97}, {"new_value": 0.9})
    assert made.take_all(body(links)) == 2
    assert (made.value(FLAG), made.value(FLAG, OWN), made.value(FLAG, scope_of(FLAG, "t2"))) == (0.98, 0.97, 0.98)
    assert made.take(later)
    assert made.value(FLAG, OWN) == 0.9


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.sampled_from(list(LIMITS)))
def test_never_looser_than_the_limit(value: float, limit: float, parameter: str) -> None:
    made = RouterThresholds({parameter: limit}, {"1": KEY.hex()}, "/nonexistent/file")
    assert made.take(chain({"parameter": parameter, "new_value": value})[0])
    found = made.value(parameter, SCOPE)
    assert found == (max(value, limit) if parameter.startswith("routing.") else min(value, limit))


def test_forged_edited_old_and_broken_links_do_not_count(file: Path) -> None:
    first, second, third = chain({}, {"new_value": 0.98}, {"new_value": 0.97})
    made = client(file)
    assert made.take(first)
    assert not made.take(chain({}, {"new_value": 0.1}, key=b"another key")[1])
    assert not made.take(msgspec.structs.replace(second, new_value=0.1))
    assert made.take(second)
    assert not made.take(first), "a copy of an old one"
    assert not made.take(second)
    torn = linked(msgspec.structs.replace(third, new_value=0.1), "sha256:0", KEY, "1")
    assert not made.take(torn), "signed, and not after the one before"
    assert made.value(FLAG) == 0.98
    assert made.take(third)


def test_a_broken_or_forged_file_leaves_the_limits(file: Path) -> None:
    file.write_bytes(b"[{")
    assert client(file).value(FLAG) == 0.999
    file.write_bytes(body(chain({"new_value": 0.1}, key=b"another key")))
    assert client(file).value(FLAG) == 0.999
    file.unlink()
    file.mkdir()
    made = client(file)
    assert made.take_all(body(chain({}))) == 1
    assert made.value(FLAG) == 0.99, "a file that cannot be written costs nothing but a restart's memory"


def test_after_an_override_has_expired_the_stricter_value_holds(file: Path) -> None:
    over, running = datetime.now(UTC) - timedelta(minutes=1), datetime.now(UTC) + timedelta(minutes=1)
    for expires_at, old, new, expected in (
        (over, 0.98, 0.99, 0.98), (over, 0.99, 0.98, 0.98),
        (running, 0.98, 0.99, 0.99), (running, 0.99, 0.98, 0.98),
    ):  # fmt: skip
        file.unlink(missing_ok=True)
        made = client(file)
        made.take(chain({"old_value": old, "new_value": new, "expires_at": expires_at})[0])
        assert made.value(FLAG) == expected


async def test_an_answer_in_many_pieces_is_read_to_its_end_and_none_for_ever(file: Path) -> None:
    answer = body(chain({}))
    asked = 0

    async def piecemeal(request: aioweb.Request) -> aioweb.StreamResponse:
        nonlocal asked
        asked += 1
        response = aioweb.StreamResponse()
        await response.prepare(request)
        if asked == 1:
            while True:  # until the client has had enough
                await response.write(b" " * (1 << 20))
        for start in range(0, len(answer), 100):
            await response.write(answer[start : start + 100])
            await asyncio.sleep(0)
        return response

    app = aioweb.Application()
    app.router.add_get("/thresholds", piecemeal)
    made = client(file)
    async with TestServer(app) as server:
        task = asyncio.create_task(made.poll(str(server.make_url("/thresholds")), 0.01))
        try:
            async with asyncio.timeout(20):
                while made.value(FLAG) != 0.99:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
        finally:
            task.cancel()
    assert asked == 2


@pytest.mark.parametrize(
    "junk", [b"", b"nonsense", b"{}", b"\xff\xfe", b"[" * 5_000, b"[1]", b'[{"version": 2}]', b"<html>"]
)
async def test_an_endpoint_that_answers_anything_else_is_asked_again_and_changes_nothing(
    file: Path, junk: bytes
) -> None:
    answers = iter([body(chain({})), junk, junk])
    asked_all = asyncio.Event()

    async def answer(request: aioweb.Request) -> aioweb.Response:
        found = next(answers, None)
        if found is None:
            asked_all.set()
            return aioweb.Response(status=500)
        return aioweb.Response(body=found)

    app = aioweb.Application()
    app.router.add_get("/thresholds", answer)
    made = client(file)
    async with TestServer(app) as server:
        task = asyncio.create_task(made.poll(str(server.make_url("/thresholds")), 0.001))
        try:
            async with asyncio.timeout(20):
                await asked_all.wait()
            assert not task.done()
        finally:
            task.cancel()
    assert made.value(FLAG) == client(file).value(FLAG) == 0.99


CHAIN = chain(
    {"new_value": 0.98}, {"mode": "proposed", "new_value": 0.5}, {"new_value": 0.9999}, {"new_value": 0.97},
    {"mode": "rolled_back", "new_value": 0.98}, {"mode": "rejected", "new_value": 0.9}, {"new_value": 0.999},
)  # fmt: skip
FORGED = chain(*({"new_value": 0.5} for _ in CHAIN), key=b"another key")
EDITED = [msgspec.structs.replace(link, new_value=5.0) for link in CHAIN]
FORKED = [linked(msgspec.structs.replace(link, new_value=0.5), "sha256:another", KEY, "1") for link in CHAIN]


@given(st.lists(st.lists(st.sampled_from([*CHAIN, *FORGED, *EDITED]), max_size=6), max_size=8), st.integers(0, 8))
def test_whatever_is_answered_versions_do_not_go_back_and_no_value_is_looser(
    answers: list[list[ThresholdUpdate]], torn: int
) -> None:
    """Old copies, gaps, edits, forgeries, in any order: the value is a real link's of the newest version seen."""
    made, newest = RouterThresholds(LIMITS, {"1": KEY.hex()}, "/nonexistent/file"), 0
    for i, answer in enumerate(answers):
        if i == torn and (follows := next((link for link in FORKED if link.version == made.version + 1), None)):
            assert made.version == 0 or not made.take(follows), "signed, and not after the one before"
            if made.version:
                answer = [*answer, follows]
        made.take_all(body(answer))
        real = [link for link in answer if link in CHAIN and link.mode in ("active", "rolled_back")]
        newest = max([newest, *(link.version for link in real)])
        expected = min(CHAIN[newest - 1].new_value, LIMITS[FLAG]) if newest else LIMITS[FLAG]
        assert made.value(FLAG) == expected
        assert made.value("routing.guardrail", ROUTE) == 0.0


async def test_it_follows_the_workers_page_and_outlives_it(file: Path) -> None:
    links = chain({}, {"new_value": 0.98})
    shown = links[:1]
    made = client(file)
    async with TestServer(web.make_app(Health(), lambda: shown)) as server:
        task = asyncio.create_task(made.poll(str(server.make_url("/thresholds")), 0.01))
        try:
            async with asyncio.timeout(10):
                while made.value(FLAG) != 0.99:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
                shown = links
                while made.value(FLAG) != 0.98:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            await server.close()
            await asyncio.sleep(0.05)
            assert not task.done()
            assert made.value(FLAG) == client(file).value(FLAG) == 0.98
        finally:
            task.cancel()
