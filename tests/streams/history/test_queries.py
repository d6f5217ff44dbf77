"""Every named query on planted data with a known answer, delivered twice."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from schemas import topics
from schemas.clickhouse import migrations, named
from streams.embedded.clickhouse import ClickHouseServer
from streams.history import History
from streams.migrations import migrate
from streams.store import Answer, Store
from tests.streams.history import test_queries_of_fleets
from tests.streams.history.planted import START, START_MS, campaign, flagged, log, request

NOW = datetime.now(UTC)
HOUR_0, HOUR_1 = START, datetime.fromtimestamp(START_MS / 1000 + 3600, UTC)


async def never(_record: Any, error: Exception) -> None:
    raise error


async def plant(store: Store) -> None:
    async with store:
        await migrate(store, migrations.load())
        history = History(store, never)
        await history.insert(campaign())
        await history.insert(campaign()[3:])


@pytest.fixture(scope="module")
def planted_database(server: ClickHouseServer) -> str:
    """Only read by the tests."""
    name = f"t{secrets.token_hex(6)}"
    asyncio.run(plant(Store(server.dsn, database=name)))
    return name


@pytest.fixture
async def planted(server: ClickHouseServer, planted_database: str) -> AsyncIterator[Store]:
    async with Store(server.dsn, database=planted_database) as store:
        yield store


async def run(store: Store, name: str, **given: str) -> Answer:
    query = named.load()[name]
    return await store.query(query.sql, query.bind({"since": "-3d", **given}, NOW))


async def rows(store: Store, name: str, columns: str, **given: str) -> list[tuple[Any, ...]]:
    """Only these columns of the answer."""
    return [tuple(row[column] for column in columns.split()) for row in (await run(store, name, **given)).records()]


async def test_verdicts_by_principal(planted: Store) -> None:
    columns = "request_id decision unjudged_reason flagged_by selected_model"
    assert await rows(planted, "verdicts_by_principal", columns, principal="p1") == [
        ("q3", "flagged", "", ["triggers"], "large"),
        ("q4", "unjudged", "no_text", [], "small"),
        ("q5", "flagged", "", ["triggers"], "large"),
    ]
    one_hour = {"until": HOUR_1.isoformat(), "limit": "1"}
    assert await rows(planted, "verdicts_by_principal", "request_id", principal="p1", **one_hour) == [("q3",)]
    assert await rows(planted, "verdicts_by_principal", "request_id", principal="p9") == []


async def test_shared_windows(planted: Store) -> None:
    columns = "window requests principals tenants kinds first_seen some_request_ids"
    assert await rows(planted, "shared_windows", columns) == [
        ("w1", 3, 2, 1, ["known_trigger"], START.replace(second=1), ["q2", "q3", "q5"])
    ]
    assert await rows(planted, "shared_windows", columns, min_requests="4") == []


async def test_spend_by_principal_and_hour(planted: Store) -> None:
    columns = "hour principal_hash outcomes priced cost_total_usd models"
    assert await rows(planted, "spend_by_principal_and_hour", columns) == [
        (HOUR_1, "p1", 1, 1, 4.0, ["large"]),
        (HOUR_0, "p1", 1, 1, 3.0, ["large"]),
        (HOUR_0, "p2", 1, 1, 2.0, ["large"]),
        (HOUR_0, "p3", 1, 1, 0.5, ["small"]),
        (HOUR_1, "p3", 1, 0, 0.0, [""]),
    ]
    assert await rows(planted, "spend_by_principal_and_hour", columns, tenant="t2") == []
    assert len(await rows(planted, "spend_by_principal_and_hour", columns, tenant="t1")) == 5


async def test_coverage_by_route_and_hour(planted: Store) -> None:
    columns = (
        "hour router_name selected_model requests judged flagged unjudged without_verdict coverage guarded_share"
    )
    assert await rows(planted, "coverage_by_route_and_hour", columns) == [
        (HOUR_0, "main", "large", 2, 2, 2, 0, 0, 1.0, 0.0),
        (HOUR_0, "main", "small", 2, 1, 0, 1, 0, 0.5, 0.5),
        (HOUR_1, "", "", 1, 0, 0, 0, 1, 0.0, 0.0),
        (HOUR_1, "main", "large", 1, 1, 1, 0, 0, 1.0, 0.0),
    ]


async def test_unjudged_by_reason(planted: Store) -> None:
    assert await rows(planted, "unjudged_by_reason", "reason router_name requests unable_detectors") == [
        ("no_text", "main", 1, ["novelty", "triggers"]),
        ("no_verdict", "", 1, []),
    ]


async def test_labels_by_judge(planted: Store) -> None:
    columns = "judge parameter labels unsafe unknown answered_twice tenants"
    assert await rows(planted, "labels_by_judge", columns) == [("desk", "novelty.flag", 3, 1, 1, 1, 1)]


async def test_timeline_of_principal(planted: Store) -> None:
    assert await rows(planted, "timeline_of_principal", "what request_id detail", principal="p1") == [
        ("request", "q3", ", 30 characters"),
        ("verdict", "q3", "flagged by triggers"),
        ("route", "q3", "main to large, tier SIMPLE, escalated"),
        ("outcome", "q3", " of large, USD 3"),
        ("finding", "r1", "known_trigger, critical"),
        ("request", "q4", ", 30 characters"),
        ("verdict", "q4", "unjudged, no_text"),
        ("request", "q5", ", 30 characters"),
        ("verdict", "q5", "flagged by triggers"),
        ("outcome", "q5", " of large, USD 4"),
    ]


async def test_first_use(planted: Store) -> None:
    columns = "principal_hash first_request_id first_seen requests"
    assert await rows(planted, "first_use", columns, window="w1") == [
        ("p2", "q2", START.replace(second=1), 1),
        ("p1", "q3", START.replace(second=2), 2),
    ]
    assert await rows(planted, "first_use", "principal_hash", trigger="g1") == [("p2",)]
    assert await rows(planted, "first_use", "principal_hash") == []  # neither asked: not all that has none


async def test_blast_radius(planted: Store) -> None:
    columns = (
        "tenant_id selected_model tier requests principals cost_total_usd unsafe_outcomes first_seen last_seen"
    )
    assert await rows(planted, "blast_radius", columns, window="w1") == [
        ("t1", "large", "REASONING", 3, 2, 9.0, 1, START.replace(second=1), HOUR_1)
    ]
    assert await rows(planted, "blast_radius", "requests cost_total_usd", trigger="g1") == [(1, 2.0)]
    assert await rows(planted, "blast_radius", "requests", window="w2") == []


def test_every_query_has_a_test() -> None:
    tests = {*globals(), *vars(test_queries_of_fleets)}
    assert {f"test_{name}" for name in named.load()} <= tests


async def test_one_principal_or_window_does_not_read_the_whole_table(store: Store) -> None:
    many = 60_000  # seven granules: what FINAL needs beside the one that is asked for are its neighbours
    events = [request(f"r{n}", f"p{n % 2000:04d}", n) for n in range(many)]
    verdicts = [flagged(f"r{n}", f"p{n % 2000:04d}", n, window=f"w{n % 2000:04d}") for n in range(many)]
    await History(store, never).insert([*log(topics.EVENTS, events), *log(topics.VERDICTS, verdicts)])
    one = {"principal": "p0042"}
    for name, asked in (
        ("verdicts_by_principal", one),
        ("timeline_of_principal", one),
        ("first_use", {"window": "w0042"}),
        ("first_use", {"window": "w0042", "trigger": "no such"}),
        ("blast_radius", {"window": "w0042"}),  # it reads `reasons` twice
    ):
        answer = await run(store, name, **asked)
        assert answer.rows
        assert (await store.query("SELECT count() FROM reasons")).rows == [(many,)]
        assert 0 < answer.read_rows < many / 2 * (1 + (name == "blast_radius")), name


async def test_values_are_values(planted: Store) -> None:
    """Not SQL, whatever is in them."""
    for value in ("' OR 1=1 --", "p1' UNION ALL SELECT 1 --", "\\", "a\nb\tc", "{limit:UInt32}"):
        assert (await run(planted, "verdicts_by_principal", principal=value)).rows == []
    with pytest.raises(DatabaseError):
        await planted.query("SELECT {n:UInt32}", {"n": "1 OR 1"})
