"""`fleet_spend`: partitions that each see a part of a rise tell the fleet lane, which sees all of it."""

import math
import random
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.alerting import Alerting
from detectors.detections import shipped
from detectors.discovery.campaigns import Campaigns
from detectors.fleet import FleetPartition
from detectors.processor import Output
from detectors.spend import Spend
from detectors.spend.level import MOST_VALUES, Level
from detectors.spend.levels import GRACE_MS, MARKER_KEY, MOST_OPEN, Levels
from detectors.thresholds import Thresholds
from schemas.codec import TICK_HEADERS, encode
from schemas.topics import ALERTS, FINDINGS
from schemas.verdicts import Finding, PriceLevels, Reason
from streams.replay import FileRecord
from tests.detectors.checks import ROUTER, START, case_of
from tests.factories import NOON_MS, at

CALLERS = 60
RISES = 600  # minute from which answers cost more
TEN_MINUTES_MS = 600_000


class Told(NamedTuple):
    time: float
    partition: int
    levels: PriceLevels


def told_by(partitions: int, tenants: int = 1, factor: float = 1.45, minutes: int = 900) -> list[Told]:
    """What partitions with an equal share of the callers tell of one and the same fleet."""
    rng, told = random.Random(7), []
    parts = [Spend(Thresholds()) for _ in range(partitions)]
    for minute in range(minutes):
        for place, who in enumerate(sorted(rng.choices(range(CALLERS), k=8))):
            time = START + minute * 60 + place
            usd = 0.01 * rng.lognormvariate(0, 0.5) * (factor if minute >= RISES else 1.0)
            case = case_of(f"p{who}", time, f"t{who % tenants}", route=ROUTER, outcome={"cost_usd": usd})
            part = parts[who % partitions]
            answer = part.score(case)
            part.learn(case, False)
            if isinstance(answer, Reason) and answer.levels is not None:
                told.append(Told(time, who % partitions, answer.levels))
    return told


def finding(name: str, levels: PriceLevels) -> Finding:
    return Finding(
        finding_id=name, kind="price_levels", category="cost_escalation", severity="info", time=at(NOON_MS),
        labels={}, detector="spend", detector_version="2", levels=levels,
    )  # fmt: skip


def log_of(told: Iterable[Told]) -> list[FileRecord]:
    """What is told as the findings topic has it, a tick between each two, and one when all can be judged."""
    log: list[FileRecord] = []

    def tick(time_ms: int) -> None:
        log.append(FileRecord(FINDINGS.name, len(log), time_ms, b"", headers=TICK_HEADERS))

    for time, partition, levels in told:
        now_ms = round(time * 1000)
        if log and now_ms - log[-1].timestamp > GRACE_MS:
            tick(log[-1].timestamp + GRACE_MS)
        value = encode(finding(f"{partition}/{levels.bucket}", levels))
        log.append(FileRecord(FINDINGS.name, len(log), now_ms, value))
    tick(log[-1].timestamp + GRACE_MS)
    return log


def findings(outputs: Iterable[Output]) -> list[Finding]:
    return [msgspec.json.decode(output.value, type=Finding) for output in outputs]


def fresh() -> Levels:
    return Levels(shipped(), Thresholds())


def judged(log: Sequence[FileRecord]) -> list[tuple[str, float]]:
    """Tenant and minute of each alarm."""
    alarms = findings(fresh().apply(log))
    assert {alarm.kind for alarm in alarms} <= {"fleet_spend"}
    return [(alarm.tenant_id, (alarm.time.timestamp() - START) / 60) for alarm in alarms]


def test_a_rise_that_no_partition_would_tell_alone() -> None:
    told = told_by(6)
    for partition in range(6):
        assert not judged(log_of(part for part in told if part.partition == partition))
    (tenant, minute), *later = judged(log_of(told))
    assert tenant == "t0"
    assert RISES < minute < RISES + 120
    assert all(other > minute + 10 for _, other in later)


def test_it_does_not_matter_how_callers_are_spread() -> None:
    one, *others = (
        [(tenant, round(minute / 10)) for tenant, minute in judged(log_of(told_by(n)))] for n in (1, 2, 6)
    )
    assert one
    assert all(other == one for other in others)


def test_many_tenants_that_each_rise_a_little_are_told_of_without_a_tenant() -> None:
    alarms = judged(log_of(told_by(2, tenants=20)))
    assert alarms
    assert {tenant for tenant, _ in alarms} == {""}


def test_a_fleet_that_stays_as_it_is_is_told_of_never() -> None:
    assert not judged(log_of(told_by(3, tenants=3, factor=1.0)))


@pytest.mark.parametrize("route", [ROUTER, ROUTER | {"tier_rank": 1}], ids=["untiered", "tiered"])
@pytest.mark.parametrize("others", [3, 11, 40])
def test_one_caller_is_not_many(others: int, route: dict[str, Any]) -> None:
    rng, spend, told = random.Random(3), Spend(Thresholds()), []
    for minute in range(900):
        dear = minute >= RISES
        callers = [*rng.choices(range(1, 1 + others), k=4), *(3 if dear else 1) * [0]]
        for place, who in enumerate(callers):
            usd = 0.01 * rng.lognormvariate(0, 0.5) * (20 if dear and not who else 1)
            for outcome in (None, {"cost_usd": usd}):
                case = case_of(f"p{who}", START + minute * 60 + place, route=route, outcome=outcome)
                answer = spend.score(case)
                spend.learn(case, dear and not who)
                if isinstance(answer, Reason) and answer.levels is not None:
                    told.append(Told(case.time, 0, answer.levels))
    assert not judged(log_of(told))


def test_the_state_is_the_logs_whatever_the_batches_and_checkpoints() -> None:
    log = log_of(told_by(3, tenants=3))
    whole = fresh()
    outputs = whole.apply(log)
    assert outputs
    stored: dict[bytes, bytes] = {}
    again: list[Output] = []
    for start in range(0, len(log), 17):
        part = fresh()
        pairs = list(stored.items())
        random.Random(start).shuffle(pairs)
        for key, value in pairs:
            part.load(key, value)
        part.loaded()
        assert not stored or part.snapshot() == stored
        again += part.apply(log[max(0, start - 5) : start + 17])  # what was done is skipped
        for key, changed in part.changes():
            stored.pop(key, None) if changed is None else stored.update({key: changed})
        assert part.snapshot() == stored
    assert again == outputs
    assert stored == whole.snapshot()


def test_what_is_told_again_counts_once_and_what_is_told_late_by_itself() -> None:
    def record(offset: int, time_ms: int, name: str) -> FileRecord:
        part = finding(name, PriceLevels(bucket=600, sums={"t0": (18.0, 18.0, 3.0)}))
        return FileRecord(FINDINGS.name, offset, time_ms, encode(part))

    def tick(offset: int, time_ms: int) -> FileRecord:
        return FileRecord(FINDINGS.name, offset, time_ms, b"", headers=TICK_HEADERS)

    once, twice = fresh(), fresh()
    once.apply([record(0, NOON_MS, "a"), record(2, NOON_MS + 2, "b")])
    twice.apply([record(0, NOON_MS, "a"), record(1, NOON_MS + 1, "a"), record(2, NOON_MS + 2, "b")])
    assert once.snapshot() == twice.snapshot()
    assert once.waiting()
    once.apply([tick(3, NOON_MS + GRACE_MS)])
    assert not once.waiting()
    before = once.snapshot()
    once.apply([record(4, NOON_MS + GRACE_MS, "a"), tick(5, NOON_MS + 3 * GRACE_MS)])
    assert {key for key, value in once.snapshot().items() if before.get(key) != value} == {MARKER_KEY}
    once.apply([record(6, NOON_MS + 3 * GRACE_MS, "late")])
    assert once.waiting()


@pytest.mark.parametrize("seconds", [3_600, 86_400])
def test_a_partition_whose_clock_is_ahead_stops_no_other(seconds: int) -> None:
    ahead = [
        part._replace(
            levels=PriceLevels(bucket=part.levels.bucket + seconds * part.partition, sums=part.levels.sums)
        )
        for part in told_by(2, factor=2.5)
    ]
    alarms = judged(log_of(ahead))
    assert alarms
    assert all(minute > RISES for _, minute in alarms)


def test_what_is_held_is_bounded() -> None:
    lane = Levels(shipped(), Thresholds(), tenants=8)
    for n in range(1000):
        sums = {f"t{n}-{i}": (25.0, 25.0, 1.0) for i in range(50)}
        levels = PriceLevels(bucket=n * 600, sums=sums)
        lane.apply([FileRecord(FINDINGS.name, n, NOON_MS, encode(finding(str(n), levels)))])
    assert lane.holds()["state_keys.levels"] <= 8
    assert len(lane.snapshot()) <= 8 + MOST_OPEN + 4 + 1  # and 1,000 findings remembered
    assert max(map(len, lane.snapshot().values())) < 4096


def test_alerts_come_of_it_and_the_fleet_keeps_each_part_apart() -> None:
    def partition() -> FleetPartition:
        return FleetPartition(Alerting(shipped()), Campaigns(shipped(), Thresholds(), False), fresh())

    log, lane = log_of(told_by(2)), partition()
    alarms = [output for output in lane.apply(log) if output.topic == FINDINGS.name]
    own = [
        FileRecord(FINDINGS.name, len(log) + n, log[-1].timestamp, alarm.value, alarm.key)
        for n, alarm in enumerate(alarms)
    ]
    restored = partition()
    for key, value in lane.snapshot().items():
        restored.load(key, value)
    restored.loaded()
    outputs = restored.apply(own)
    assert outputs == lane.apply(own)
    assert restored.snapshot() == lane.snapshot()
    (alert,) = [output for output in outputs if output.topic == ALERTS.name]
    assert b'"alertname":"fleet_spend"' in alert.value


@pytest.mark.parametrize(
    "sums", [(0.0, 0.0, 0.0), (25.0, 17.0, 75.0), (25.0, math.inf, 1.0), (25.0, 25.0, math.nan)]
)
def test_sums_that_say_nothing_are_not_tested(sums: tuple[float, float, float]) -> None:
    level = Level()
    assert not level.add(*sums, 7.0)
    assert level.pack() == Level().pack()


@given(st.lists(st.floats(-9, 9), max_size=2 * MOST_VALUES), st.integers(0, 2 * MOST_VALUES))
@settings(max_examples=20, deadline=None)
def test_a_level_is_packed_and_goes_on_exactly(values: list[float], cut: int) -> None:
    running = Level()
    for value in values[:cut]:
        running.add(25.0, 25.0, 5.0 * value, 7.0)
    restored = Level(running.pack())
    for value in values[cut:]:
        assert running.add(25.0, 25.0, 5.0 * value, 7.0) == restored.add(25.0, 25.0, 5.0 * value, 7.0)
    assert restored.pack() == running.pack()
