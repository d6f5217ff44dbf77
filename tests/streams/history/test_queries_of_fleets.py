"""The named queries about shares, moves, near-duplicates and windows of time, on planted data."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas import topics
from schemas.clickhouse import migrations, named
from schemas.thresholds import ThresholdScope, ThresholdUpdate
from streams.embedded.clickhouse import ClickHouseServer
from streams.history import History
from streams.migrations import migrate
from streams.store import Store
from tests.streams.history.planted import START, flagged, log, outcome, request, route, verdict

NOW = datetime.now(UTC)
RANGE = {"since": (START - timedelta(hours=1)).isoformat(), "until": (START + timedelta(hours=1)).isoformat()}
PAST_MS = -3 * 86_400_000
SAME = 0x0F0F_F0F0_1234_5678


def spenders() -> list[Any]:
    """p1 leaves its past: from the small model to the strong one. p2 stays as it was."""
    records: list[Any] = []
    for n in range(30):
        after, tag = (PAST_MS, "past") if n < 10 else (0, "now")
        for who, rank, usd in (("p1", 0 if n < 10 else 3, 0.5 if n < 10 else 2.0), ("p2", 0, 0.5)):
            name = f"{tag}-{who}-{n}"
            tier = {"tier": ("SIMPLE", "", "", "REASONING")[rank], "tier_rank": rank}
            model = "large" if rank else "small"
            scores = {"novelty": 0.2 + n / 100}
            records += [
                request(name, who, after + n),
                verdict(name, who, after + n, selected_model=model, scores=scores, cost_estimate_usd=usd, **tier),
                outcome(name, who, after + n + 100, cost_usd=usd),
            ]
    return records


def movers() -> list[Any]:
    """p5 climbs in two conversations; p6 goes up and down in one."""
    records: list[Any] = []
    for who, conversation, ranks in (
        ("p5", "a", (0, 1, 2, 3)),
        ("p5", "b", (0, 1, 2)),
        ("p6", "c", (0, 1, 0, 1, 0, 1)),
    ):
        for turn, rank in enumerate(ranks):
            name, after = f"{who}-{conversation}-{turn}", 10_000 + turn * 1_000
            records += [
                request(name, who, after, conversation_id=conversation),
                verdict(name, who, after, tier_rank=rank, selected_model="m", scores={"steering": float(rank)}),
            ]
    return records


def served() -> list[Any]:
    """p7's answers on `weak`: 4 of 10 unsafe, guarded; 5 fail-overs to `spare` without a guardrail."""
    records: list[Any] = []
    for n in range(15):
        spare = n >= 10
        name, model = f"p7-{n}", "spare" if spare else "weak"
        records += [
            request(name, "p7", 20_000 + n),
            route(name, "p7", 20_000 + n, selected_model=model, category="code", tier="SIMPLE",
                  fallback_from="weak" if spare else ""),
            outcome(name, "p7", 20_100 + n, guardrail_verdict="" if spare else "allow",
                    evaluation_score_label="" if spare else "unsafe" if n < 4 else "safe"),
        ]  # fmt: skip
    return records


def alike() -> list[Any]:
    """One prompt, an edit of it (3 bits), and another prompt altogether."""
    return [
        verdict("same-0", "p8", 30_000, selected_model="m", likeness=SAME),
        verdict("same-1", "p8", 30_001, selected_model="m", likeness=SAME ^ 0b111),
        verdict("same-2", "p9", 30_002, selected_model="m", likeness=SAME ^ 0xFFFF_FFFF),
        verdict("same-3", "p9", 30_003, selected_model="m"),
        flagged("odd", "p9", 30_004),
    ]


def updates() -> list[ThresholdUpdate]:
    common: dict[str, Any] = {
        "scope": ThresholdScope(detector="novelty"), "parameter": "novelty.flag", "mode": "active",
    }  # fmt: skip
    first: dict[str, Any] = {"old_value": None, "new_value": 0.99, "direction": "tighten", "cause": "manual"}
    second: dict[str, Any] = {"old_value": 0.99, "new_value": 0.995, "direction": "loosen", "cause": "auto"}
    later = START + timedelta(minutes=1)
    return [
        ThresholdUpdate(update_id="u1", version=1, time=START, actor="ada", reason="first", **first, **common),
        ThresholdUpdate(
            update_id="u2",
            version=2,
            time=later,
            actor="ratchet",
            approver="bob",
            reason="quiet",
            **second,
            **common,
        ),
    ]


async def never(_record: Any, error: Exception) -> None:
    raise error


async def plant(store: Store) -> None:
    records = [*spenders(), *movers(), *served(), *alike()]
    verdicts = [record for record in records if hasattr(record, "verdict_id")]
    events = [record for record in records if not hasattr(record, "verdict_id")]
    async with store:
        await migrate(store, migrations.load())
        history = History(store, never)
        for _ in range(2):  # delivered twice, as after a crash
            await history.insert([*log(topics.EVENTS, events), *log(topics.VERDICTS, verdicts)])
            await history.insert(log(topics.THRESHOLDS, updates()))


@pytest.fixture(scope="module")
def fleet_database(server: ClickHouseServer) -> str:
    """Only read by the tests."""
    name = f"t{secrets.token_hex(6)}"
    asyncio.run(plant(Store(server.dsn, database=name)))
    return name


@pytest.fixture
async def fleet(server: ClickHouseServer, fleet_database: str) -> AsyncIterator[Store]:
    async with Store(server.dsn, database=fleet_database) as store:
        yield store


async def rows(store: Store, name: str, columns: str, **given: str) -> list[tuple[Any, ...]]:
    """Only these columns of the answer."""
    query = named.load()[name]
    known = {parameter.name for parameter in query.parameters}
    values = {key: value for key, value in RANGE.items() if key in known} | given
    answer = await store.query(query.sql, query.bind(values, NOW))
    return [tuple(row[column] for column in columns.split()) for row in answer.records()]


async def test_spend_against_past(fleet: Store) -> None:
    columns = "principal_hash requests strong_share past_strong_share past_requests cost_total_usd usd_per_request"
    assert await rows(fleet, "spend_against_past", columns) == [
        ("p1", 20, 1.0, 0.0, 10, 40.0, 2.0),
        ("p2", 20, 0.0, 0.0, 10, 10.0, 0.5),
    ]
    assert await rows(fleet, "spend_against_past", "past_requests", past_days="1") == [(0,), (0,)]


async def test_one_way_movers(fleet: Store) -> None:
    columns = "principal_hash moves_up moves_down conversations steering_evidence"
    assert await rows(fleet, "one_way_movers", columns) == [("p5", 5, 0, 2, 3.0)]
    assert await rows(fleet, "one_way_movers", columns, min_moves="6") == []


async def test_unsafe_share_by_route_and_category(fleet: Store) -> None:
    columns = "router_name selected_model category labelled unsafe unsafe_share unsafe_low unsafe_high"
    [row] = await rows(fleet, "unsafe_share_by_route_and_category", columns)
    assert row[:6] == ("main", "weak", "code", 10, 4, 0.4)
    assert row[6:] == pytest.approx((0.168, 0.687), abs=0.002)  # Wilson's, for 4 of 10
    assert await rows(fleet, "unsafe_share_by_route_and_category", columns, min_labelled="11") == []


async def test_guardrail_coverage_by_route(fleet: Store) -> None:
    columns = "selected_model failed_over answered_requests guarded_requests guarded_share"
    assert await rows(fleet, "guardrail_coverage_by_route", columns) == [
        ("spare", True, 5, 0, 0.0),
        ("weak", False, 10, 10, 1.0),
    ]


async def test_near_duplicates(fleet: Store) -> None:
    columns = "request_id differing_bits principal_hash"
    assert await rows(fleet, "near_duplicates", columns, request="same-0") == [("same-1", 3, "p8")]
    everything = await rows(fleet, "near_duplicates", columns, request="same-0", bits="64")
    assert everything == [("same-1", 3, "p8"), ("same-2", 32, "p9")]
    for nothing in ("same-3", "no-such-request"):
        assert await rows(fleet, "near_duplicates", columns, request=nothing, bits="64") == []


async def test_what_if(fleet: Store) -> None:
    columns = "tenant_id judged would_flag flagged added lost would_flag_principals"
    given = {"detector": "novelty", "threshold": "0.445"}
    assert await rows(fleet, "what_if", columns, **given) == [("t1", 40, 10, 0, 10, 0, 2)]
    with pytest.raises(named.BadParameter, match="threshold"):
        await rows(fleet, "what_if", columns, detector="novelty", threshold="nan")


async def test_threshold_history(fleet: Store) -> None:
    columns = "version has_old_value old_value new_value direction cause actor approver reason"
    assert await rows(fleet, "threshold_history", columns) == [
        (2, True, 0.99, 0.995, "loosen", "auto", "ratchet", "bob", "quiet"),
        (1, False, 0.0, 0.99, "tighten", "manual", "ada", "", "first"),
    ]
    assert await rows(fleet, "threshold_history", columns, parameter="novelty.prior") == []


async def test_fleet_diff(fleet: Store) -> None:
    past = START + timedelta(milliseconds=PAST_MS)
    given = {
        "before_since": (past - timedelta(hours=1)).isoformat(),
        "before_until": (past + timedelta(hours=1)).isoformat(),
        "until": (START + timedelta(seconds=5)).isoformat(),
    }
    columns = "selected_model requests_before requests_after traffic_share_before traffic_share_after"
    assert await rows(fleet, "fleet_diff", columns + " estimated_usd_before estimated_usd_after", **given) == [
        ("large", 0, 20, 0.0, 0.5, 0.0, 40.0),
        ("small", 20, 20, 1.0, 0.5, 10.0, 10.0),
    ]
