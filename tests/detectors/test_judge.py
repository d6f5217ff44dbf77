"""One partition's judgement: one verdict a request whatever comes, in whatever order and batches."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.budget import Grant
from detectors.catalogue import Catalogue
from detectors.contract import Answer, Case
from detectors.judge import Judge, JudgeLimits
from detectors.panel import PromptPanel
from detectors.text import PromptBatch
from detectors.thresholds import Thresholds
from schemas.codec import TICK_HEADERS
from schemas.events import AnyEvent
from schemas.topics import DEADLETTERS, EVENTS, FINDINGS, VERDICTS
from schemas.verdicts import Finding, Reason, Verdict
from streams.replay import FileRecord
from tests.factories import NOON_MS, outcome, record, records, request, route


class Words:
    """Flags prompts that hold the word `trigger`; fails on `explode`."""

    name, version, kinds = "triggers", "1", ("known_trigger",)

    catalogue = Catalogue((), 7)

    def swap(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue

    def score_batch(self, prompts: PromptBatch, grant: Grant | None = None) -> list[Answer]:
        return [
            self._score(text) if readable else None
            for text, readable in zip(prompts.heads, prompts.readable, strict=True)
        ]

    def _score(self, text: str) -> Answer:
        if "explode" in text:
            raise RuntimeError("planted")
        if "trigger" not in text:
            return 0.0
        return Reason(detector=self.name, detector_version="1", score=2.0, threshold=1.0, flagged=True,
                      kind="known_trigger", trigger_id="t-1",
                      stage="fragment" if "part" in text else "lexical")  # fmt: skip


class Tally:
    """Counts the cases of each principal, and how many of them had an outcome: all order shows in it."""

    name, version, kinds = "spend", "1", ("denial_of_wallet",)

    def __init__(self) -> None:
        self._state: dict[str, list[Any]] = {}
        self._dirty: set[str] = set()

    def score(self, case: Case) -> Answer:
        seen = self._state.get(case.request.principal_hash, [0, 0, ""])
        return float(seen[0])

    def learn(self, case: Case, flagged: bool) -> None:
        key = case.request.principal_hash
        seen = self._state.setdefault(key, [0, 0, ""])
        seen[0] += 1
        seen[1] += case.outcome is not None
        seen[2] = case.request.request_id
        self._dirty.add(key)

    def changes(self) -> Iterable[tuple[str, bytes | None]]:
        changed, self._dirty = sorted(self._dirty), set()
        return [(key, msgspec.msgpack.encode(self._state[key])) for key in changed]

    def snapshot(self) -> dict[str, bytes]:
        return {key: msgspec.msgpack.encode(value) for key, value in self._state.items()}

    def load(self, key: str, value: bytes | None) -> None:
        if value is None:
            self._state.pop(key, None)
        else:
            self._state[key] = msgspec.msgpack.decode(value)


class Windows(Tally):
    """Makes every prompt a candidate of `discovery`."""

    name, kinds = "discovery", ("trigger_candidate",)

    def score(self, case: Case) -> Answer:
        return Reason(detector=self.name, detector_version="1", score=2.0, threshold=1.0, kind="trigger_candidate",
                      window="w")  # fmt: skip


def make(**limits: int) -> Judge:
    panel = PromptPanel(Words(), (), Thresholds())
    return Judge(panel, [Tally()], JudgeLimits(**limits), partition=3)


def verdicts(outputs: Iterable[Any]) -> list[Verdict]:
    return [msgspec.json.decode(o.value, type=Verdict) for o in outputs if o.topic == VERDICTS.name]


def findings(outputs: Iterable[Any]) -> list[Finding]:
    return [msgspec.json.decode(o.value, type=Finding) for o in outputs if o.topic == FINDINGS.name]


def tick(offset: int, time_ms: int) -> FileRecord:
    return FileRecord(EVENTS.name, offset, time_ms, b"", headers=TICK_HEADERS)


def test_verdict_when_request_and_route_have_met() -> None:
    judge = make()
    assert judge.apply(records([request()])) == []
    (verdict,) = verdicts(judge.apply([record(route(), 1)]))
    assert (verdict.request_id, verdict.decision, verdict.selected_model) == ("r1", "clean", "small")
    assert (verdict.partition, verdict.offset, verdict.catalogue_version) == (3, 0, 7)
    assert verdict.scores == {"triggers": 0.0, "spend": 0.0}


@pytest.mark.parametrize(
    ("text", "candidates"), [("hello", [""]), ("a trigger", []), ("part of a trigger", ["t-1"])]
)
def test_what_the_catalogue_knows_needs_no_discovery(text: str, candidates: list[str]) -> None:
    judge = Judge(PromptPanel(Words(), (), Thresholds()), [Windows()], JudgeLimits(), partition=3)
    outputs = judge.apply(records([request(prompt_text=text), route(router_name="r-1")]))
    made = [finding for finding in findings(outputs) if finding.kind == "trigger_candidate"]
    assert [finding.trigger_id for finding in made] == candidates
    assert {output.key for output in outputs if b'"trigger_candidate"' in output.value} <= {b"r-1"}


def test_a_verdict_names_the_thresholds_that_its_prompt_was_judged_by() -> None:
    thresholds = Thresholds(version=3)
    judge = Judge(PromptPanel(Words(), (), thresholds), [], JudgeLimits())
    judge.apply(records([request()]))
    thresholds.swap({}, 4)  # before its route has come
    (verdict,) = verdicts(judge.apply([record(route(), 1)]))
    assert verdict.thresholds_version == 3


def test_route_may_come_first() -> None:
    (verdict,) = verdicts(make().apply(records([route(), request()])))
    assert verdict.decision == "clean"
    assert verdict.offset == 1


def test_without_a_route_the_verdict_comes_after_the_grace() -> None:
    judge = make(join_grace_ms=1_000)
    assert judge.apply(records([request()])) == []
    assert judge.waiting()
    assert judge.apply([tick(1, NOON_MS + 999)]) == []
    (verdict,) = verdicts(judge.apply([tick(2, NOON_MS + 1_000)]))
    assert verdict.route_missing
    assert not judge.waiting()
    assert judge.counters["joins.route_missing"] == 1


def test_a_clock_that_was_an_hour_ahead_does_not_hold_a_verdict_for_an_hour() -> None:
    """The brokers' clock is set right after a step: ticks with lower times than the stream's still move it on."""
    judge = make()
    assert judge.apply([record(request(), 0, NOON_MS + 3_600_000), tick(1, NOON_MS)]) == []
    [verdict] = verdicts(judge.apply([tick(2, NOON_MS + 1_000), tick(3, NOON_MS + 3_000)]))
    assert verdict.route_missing


def test_joins_expire_before_each_event_not_per_batch() -> None:
    late = [record(request(), 0, NOON_MS), record(route(), 1, NOON_MS + 5_000)]
    (verdict,) = verdicts(make(join_grace_ms=1_000).apply(late))
    assert verdict.route_missing


def test_a_flag_makes_a_finding_keyed_by_its_identity() -> None:
    out = make().apply(
        records(
            [
                request(prompt_text="a trigger"),
                route(),
                request("r2", prompt_text="trigger", principal="p2"),
                route("r2", "p2"),
            ]
        )
    )
    first, second = findings(out)
    assert first.labels == {"alertname": "known_trigger", "category": "cost_escalation", "trigger_id": "t-1"}
    assert len({o.key for o in out if o.topic == FINDINGS.name}) == 1
    assert first.finding_id != second.finding_id
    assert [v.decision for v in verdicts(out)] == ["flagged", "flagged"]


def test_request_without_text_is_unjudged_with_its_reason() -> None:
    (verdict,) = verdicts(make().apply(records([request(prompt_text=""), route()])))
    assert (verdict.decision, verdict.unjudged_reason, verdict.unable) == ("unjudged", "no_text", ["triggers"])


def test_a_failing_detector_costs_only_its_own_request() -> None:
    events = [request("r1"), request("r2", prompt_text="explode"), request("r3", prompt_text="trigger")]
    events_and_routes: list[AnyEvent | bytes] = [*events, route("r1"), route("r2"), route("r3")]
    by_id = {v.request_id: v for v in verdicts(make().apply(records(events_and_routes)))}
    assert {k: v.decision for k, v in by_id.items()} == {"r1": "clean", "r2": "unjudged", "r3": "flagged"}
    assert by_id["r2"].unjudged_reason == "error"


def test_what_a_detector_raised_is_logged_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    make().apply(records([request(prompt_text="explode"), route()]))
    (line,) = [found for found in caplog.records if "prompt detector" in found.message]
    assert "RuntimeError at test_judge.py" in line.message
    assert "planted" not in line.message
    assert line.exc_info is None


def test_rubbish_is_a_dead_letter_with_its_bytes_and_costs_nothing_else() -> None:
    out = make().apply(records([request(), b"\xff\x00rubbish", route()]))
    (letter,) = [o for o in out if o.topic == DEADLETTERS.name]
    assert letter.value == b"\xff\x00rubbish"
    assert len(verdicts(out)) == 1


def test_a_repeated_event_gives_no_second_verdict() -> None:
    judge = make()
    out = judge.apply(records([request(), request(), route(), request(), route()]))
    assert len(verdicts(out)) == 1
    assert judge.counters["oddities.duplicate_request"] == 2
    assert judge.counters["oddities.duplicate_route"] == 1


def test_a_request_id_used_again_is_judged_again() -> None:
    """Clients may choose request ids: one that repeats them must not hide behind the first verdict."""
    judge = make()
    again = request(event_id="other", prompt_text="trigger")
    out = judge.apply(records([request(), route(), again, route(event_id="other-r")]))
    assert [v.decision for v in verdicts(out)] == ["clean", "flagged"]
    waiting_twice = judge.apply([record(request("r9", event_id="a"), 4), record(request("r9", event_id="b"), 5)])
    assert [v.event_id for v in verdicts(waiting_twice)] == ["a"]
    assert judge.counters["oddities.request_id_reused"] == 2


def test_the_same_request_id_of_two_principals_are_two_requests() -> None:
    events: list[AnyEvent | bytes] = [
        request(principal="p1"),
        request(principal="p2", event_id="x"),
        route(principal="p2", event_id="y"),
        route(principal="p1"),
    ]
    assert {v.principal_hash for v in verdicts(make().apply(records(events)))} == {"p1", "p2"}


def test_a_further_attempt_is_judged_but_the_verdict_stands() -> None:
    judge = make()
    out = judge.apply(records([request(), route(), route(event_id="second", attempt=1, selected_model="large")]))
    assert [v.selected_model for v in verdicts(out)] == ["small"]
    assert judge.counters["oddities.further_route"] == 1


def test_an_outcome_published_twice_is_one() -> None:
    """Early or late, and with others between; so is an earlier attempt's route."""
    judge = make()
    events: list[AnyEvent | bytes] = [
        request(),
        outcome(),
        outcome(),
        route(),
        outcome(event_id="b"),
        outcome(),
        outcome(event_id="b"),
    ]
    judge.apply(records([*events, route(event_id="second"), route(), route(event_id="second")]))
    assert judge.counters["oddities.duplicate_outcome"] == 3
    assert judge.counters["oddities.duplicate_route"] == 2
    (value,) = [v for k, v in judge.snapshot().items() if k == b"d/spend/p1"]
    assert msgspec.msgpack.decode(value)[:2] == [4, 2], "two routes, two outcomes"


def test_outcomes_reach_detectors_before_and_after_the_verdict() -> None:
    judge = make()
    judge.apply(records([request(), outcome(), route(), outcome(event_id="later")]))
    (value,) = [v for k, v in judge.snapshot().items() if k == b"d/spend/p1"]
    assert msgspec.msgpack.decode(value)[:2] == [3, 2]


def test_state_holds_no_prompt_text() -> None:
    judge = make()
    judge.apply(
        records(
            [request(prompt_text="my secret words"), request("r2", prompt_head="my secret", prompt_tail="words")]
        )
    )
    assert not any(b"secret" in value for value in judge.snapshot().values())


def test_waiting_and_settled_are_bounded() -> None:
    judge = make(most_waiting=3, most_settled=4)
    out = judge.apply(records([request(f"r{i}") for i in range(10)]))
    out += judge.apply([tick(10, NOON_MS + 10_000)])
    assert len({v.request_id for v in verdicts(out)}) == 10
    assert sum(key.startswith(b"s/") for key in judge.snapshot()) <= 4
    assert judge.counters["joins.evicted"] > 0


EVENTS_OF_ONE = st.sampled_from(["request", "again", "route", "route2", "outcome", "rubbish", "tick"])


def _event(kind: str, number: int) -> AnyEvent | bytes:
    rid, principal = f"r{number}", f"p{number % 2}"
    if kind == "rubbish":
        return b"{" * (number + 1)
    if kind == "tick":
        return b""
    if kind == "again":
        return request(rid, principal, event_id=f"{rid}-again")
    if kind == "route2":
        return route(rid, principal, event_id=f"{rid}-r2", attempt=1)
    if kind == "route":
        return route(rid, principal)
    return outcome(rid, principal) if kind == "outcome" else request(rid, principal)


@st.composite
def logs(draw: st.DrawFn) -> list[FileRecord]:
    items = draw(st.lists(st.tuples(EVENTS_OF_ONE, st.integers(0, 4), st.integers(-2_000, 1_500)), max_size=30))
    time, log = NOON_MS, []
    for offset, (kind, number, step) in enumerate(items):
        time += step
        event = _event(kind, number)
        log.append(tick(offset, time) if event == b"" else record(event, offset, time))
    latest = max([NOON_MS, *(one.timestamp for one in log)])  # all is due then, however far the clock went back
    log.append(tick(len(items), latest + 10_000))
    return log


def run(log: Sequence[FileRecord], cuts: Sequence[int], limits: dict[str, int]) -> tuple[list[Any], Judge]:
    judge, out, start = make(**limits), [], 0
    for cut in [*sorted(cuts), len(log)]:
        out += judge.apply(log[start:cut])
        start = max(start, cut)
    return out, judge


LIMITS = {"join_grace_ms": 1_000, "outcome_ttl_ms": 3_000}


@given(logs(), st.data())
def test_batches_and_restarts_change_nothing(log: list[FileRecord], data: st.DataObject) -> None:
    whole, undisturbed = run(log, [], LIMITS)
    cuts = data.draw(st.lists(st.integers(0, len(log)), max_size=4))
    split, judge = run(log, cuts, LIMITS)
    assert split == whole
    assert judge.snapshot() == undisturbed.snapshot()

    # Stop after a checkpoint and some work that it does not cover; load what was written; go on.
    store: dict[bytes, bytes] = {}
    resumed, out = make(**LIMITS), []
    for cut in sorted(cuts):
        out += resumed.apply([r for r in log[:cut] if r.offset >= resumed.offset])
        for key, value in resumed.changes():
            store.pop(key, None) if value is None else store.__setitem__(key, value)
        lost = resumed.apply(log[resumed.offset : resumed.offset + 2])  # crashed before its checkpoint
        again = make(**LIMITS)
        for key, value in store.items():
            again.load(key, value)
        again.loaded()
        assert lost == make_copy(again).apply(log[again.offset : again.offset + 2])
        resumed = again
    out += resumed.apply(log[resumed.offset :])
    assert out == whole
    assert resumed.snapshot() == undisturbed.snapshot()


def make_copy(judge: Judge) -> Judge:
    copy = make(**LIMITS)
    for key, value in judge.snapshot().items():
        copy.load(key, value)
    copy.loaded()
    return copy


@given(logs())
def test_every_request_event_gets_exactly_one_verdict(log: list[FileRecord]) -> None:
    out, judge = run(log, [], {"join_grace_ms": 1_000, "outcome_ttl_ms": 10**9})
    counts = Counter(v.event_id for v in verdicts(out))
    sent = {msgspec.json.decode(r.value or b"")["event_id"] for r in log if b'"request"' in (r.value or b"")}
    assert set(counts) == sent
    if not judge.counters["oddities.request_id_reused"]:
        assert set(counts.values()) <= {1}


@pytest.mark.parametrize("value", [b"", None])
def test_an_empty_value_that_is_no_tick_is_a_dead_letter(value: bytes | None) -> None:
    out = make().apply([FileRecord(EVENTS.name, 0, NOON_MS, value)])
    assert [o.topic for o in out] == [DEADLETTERS.name]
