"""Candidates of all partitions become a campaign: told from content, tried, named, proposed."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from detectors.alerting import Alerting
from detectors.detections import shipped
from detectors.discovery.campaign import interval
from detectors.discovery.campaigns import Campaigns
from detectors.discovery.transplant import Probes, answer, shipped_probes
from detectors.fleet import FleetPartition
from detectors.processor import Output
from detectors.spend.levels import Levels
from detectors.thresholds import Thresholds
from schemas.codec import ERASE_HEADERS, encode
from schemas.erasures import Erasure
from schemas.topics import ALERTS, FINDINGS, PROPOSALS
from schemas.triggers import Trigger
from schemas.verdicts import Finding, WindowUse
from streams.replay import FileRecord
from tests.factories import NOON_MS, at


class Router:
    def __init__(self, lift: float) -> None:
        self.lift = lift

    def score(self, texts: Sequence[str]) -> list[float]:
        return [len(text) % 7 / 100 + self.lift * ("TRIGGER" in text) for text in texts]


def tokens(seed: int, n: int = 12) -> list[int]:
    return random.Random(f"window {seed}").sample(range(4096), n)


def candidate(n: int, **fields: Any) -> Finding:
    rng = random.Random(n if "seed" not in fields else fields.pop("seed"))
    use: dict[str, Any] = {
        "bodies": n + 1, "residual": 2.5, "scale": 0.1, "place": "head", "text": "TRIGGER", "requests": 5_000,
        "tokens": tokens(sum(fields.get("window", "w").encode())),
        "rest": sorted(rng.sample(range(4096), 24)), **fields.pop("use", {}),
    }  # fmt: skip
    defaults: dict[str, Any] = {
        "finding_id": f"f{n}", "kind": "trigger_candidate", "category": "cost_escalation", "severity": "info",
        "time": at(NOON_MS + n), "labels": {}, "detector": "discovery", "detector_version": "2", "window": "w",
        "tenant_id": f"t{n % 3}", "principal_hash": f"p{n % 5}", "request_id": f"r{n}", "score": 3.0 + n,
        "direction": "up", "event_time": at(NOON_MS + n), "use": WindowUse(**use),
    }  # fmt: skip
    return Finding(**{**defaults, **fields})


class Lane:
    """One fleet partition whose transplants are answered by a router (None: by nobody)."""

    def __init__(self, router: Router | None, transplants: bool = True) -> None:
        self.campaigns = Campaigns(shipped(), Thresholds(), transplants)
        self.part = FleetPartition(Alerting(shipped()), self.campaigns, Levels(shipped(), Thresholds()))
        self.probes = Probes(router, shipped_probes()) if router else None
        self.log: list[FileRecord] = []
        self.out: list[Output] = []

    def take(self, *findings: Finding, step_ms: int = 1000) -> None:
        for finding in findings:
            time_ms = NOON_MS + len(self.log) * step_ms
            self.log.append(FileRecord(FINDINGS.name, len(self.log), time_ms, encode(finding)))
            outputs = self.part.apply(self.log[-1:])
            self.out += outputs
            for output in outputs:
                if output.topic == FINDINGS.name:
                    told = msgspec.json.decode(output.value, type=Finding)
                    self.take(told, step_ms=step_ms)
                    if told.transplant and not told.transplant.is_answer and self.probes:
                        told.transplant = answer(self.probes, told.transplant)
                        self.take(told, step_ms=step_ms)

    def findings(self, kind: str) -> list[Finding]:
        told = [msgspec.json.decode(o.value, type=Finding) for o in self.out if o.topic == FINDINGS.name]
        return [finding for finding in told if finding.kind == kind and not finding.campaign]

    def proposals(self) -> list[Trigger]:
        return [msgspec.json.decode(o.value, type=Trigger) for o in self.out if o.topic == PROPOSALS.name]


def test_a_window_that_moves_the_probes_is_named_with_all_its_uses_and_proposed() -> None:
    lane = Lane(Router(0.3))
    lane.take(*(candidate(n) for n in range(8)))
    named = lane.findings("unseen_trigger")
    assert [finding.request_id for finding in named] == [f"r{n}" for n in range(8)]
    assert {finding.labels["window"] for finding in named} == {"w"}
    assert {finding.stage for finding in named} == {"transplant"}
    assert named[0].score == pytest.approx(3.0, abs=0.5)
    assert "5 uses, 5 callers, first in r0; lift 3.1 sd" in named[0].note
    assert named[-1].note.startswith("8 uses")
    (proposal,) = lane.proposals()
    assert (proposal.text, proposal.position, proposal.review) == ("TRIGGER", "prefix", "proposed")
    assert any(output.topic == ALERTS.name for output in lane.out)


def test_content_that_moves_no_probe_is_not() -> None:
    lane = Lane(Router(0.0))
    lane.take(*(candidate(n) for n in range(40)))
    assert not lane.findings("unseen_trigger")
    assert not lane.proposals()
    assert lane.campaigns.counters["transplants.no_lift"] >= 1
    assert lane.campaigns.counters["transplants.queries"] <= 10


def test_now_this_now_that_around_the_same_few_words_is_no_text_that_comes_back() -> None:
    lane = Lane(Router(0.3))
    for n in range(40):
        lane.take(candidate(n, use={"tokens": [*tokens(0, 4), *tokens(n + 1, 24)]}))
    assert not lane.findings("transplant")


def test_a_text_that_others_interrupt_is_tried_all_the_same() -> None:
    lane = Lane(Router(0.3))
    for n in range(16):
        lane.take(candidate(n, use={"tokens": tokens(0 if n % 3 else n)}))
    assert lane.findings("unseen_trigger")
    assert {f.request_id for f in lane.findings("unseen_trigger")}.isdisjoint({"r3", "r6", "r9"})


def test_windows_of_one_text_are_one_campaign() -> None:
    lane = Lane(Router(0.3))
    lane.take(*(candidate(n, use={"tokens": tokens(0)}) for n in range(8)))
    mutated = [*tokens(0)[:9], *tokens(1)[:3]]
    lane.take(*(candidate(n, window="cut elsewhere", use={"tokens": mutated}) for n in range(8, 16)))
    lane.take(*(candidate(n, window="other", use={"tokens": tokens(2)}) for n in range(16, 24)))
    uses = Counter(finding.window for finding in lane.findings("unseen_trigger"))
    assert uses == {"w": 16, "other": 8}


def test_a_mutated_text_is_one_campaign_however_its_windows_are_cut_and_called() -> None:
    lane, rng = Lane(Router(0.3)), random.Random(5)
    for n in range(12):
        mutated = list(tokens(0))
        for replaced in rng.sample(range(12), 2):
            mutated[replaced] = rng.choice(range(4096))
        cut = slice(0, 9) if n % 3 == 1 else slice(3, 12) if n % 3 == 2 else slice(0, 12)
        lane.take(candidate(n, window=f"w{n}", use={"tokens": mutated[cut]}))
    named = lane.findings("unseen_trigger")
    assert len({finding.window for finding in named}) == 1
    assert len(named) == 12
    assert len(lane.proposals()) == 1


def test_another_text_under_the_same_name_is_another_campaign() -> None:
    lane = Lane(Router(0.3))
    for n in range(16):
        lane.take(candidate(n, use={"tokens": tokens(n % 2)}))
    uses = Counter(finding.window for finding in lane.findings("unseen_trigger"))
    assert sorted(uses.values()) == [8, 8]


def test_what_lifts_now_and_then_is_no_question_to_the_router() -> None:
    lane = Lane(Router(0.3))
    for n in range(40):
        lane.take(candidate(n, use={"residual": 2.5 if n % 3 == 0 else 0.0}))
    assert not lane.findings("transplant")


def test_a_window_is_usual_by_most_of_its_uses() -> None:
    for often, kind in ((3, "unseen_trigger"), (1, "usual_window")):
        lane = Lane(Router(0.3))
        lane.take(*(candidate(n, use={"usual": n % 4 >= often}) for n in range(16)))
        assert {f.kind for f in lane.findings("unseen_trigger") + lane.findings("usual_window")} == {kind}


def test_a_named_window_that_is_forgotten_takes_no_uses_any_more() -> None:
    lane = Lane(Router(0.3))
    lane.take(*(candidate(n, tenant_id="t", principal_hash="p", use={"tokens": tokens(0)}) for n in range(12)))
    assert lane.findings("unseen_trigger")
    gone = Erasure(tenant_id="t", principal_hash="p", until=at(NOON_MS + 10**6))
    record = FileRecord(FINDINGS.name, len(lane.log), NOON_MS + 60_000, encode(gone), headers=ERASE_HEADERS)
    lane.log.append(record)
    lane.part.apply([record])
    before = len(lane.findings("unseen_trigger"))
    lane.take(candidate(13, window="cut elsewhere", use={"tokens": tokens(0)}))
    assert len(lane.findings("unseen_trigger")) == before


def test_one_caller_of_most_uses_needs_more_contexts() -> None:
    lane = Lane(Router(0.3))
    lane.take(
        *(candidate(n, principal_hash="p" if n % 4 else "q", tenant_id="t" if n % 4 else "u") for n in range(8))
    )
    assert not lane.findings("transplant")


def test_a_use_says_of_which_entry_it_has_a_fragment() -> None:
    lane = Lane(Router(0.3))
    lane.take(*(candidate(n, trigger_id="t-1") for n in range(8)))
    assert {finding.trigger_id for finding in lane.findings("unseen_trigger")} == {"t-1"}


def test_one_context_however_often_is_not_tried() -> None:
    lane = Lane(Router(0.3))
    lane.take(*(candidate(n, seed=1) for n in range(30)))
    assert not lane.findings("transplant")


def test_contexts_of_one_topic_are_not_tried() -> None:
    lane = Lane(Router(0.3))
    topic = list(range(4))  # a sixth of the words in common, otherwise different
    for n in range(30):
        rest = sorted({*topic, *random.Random(n).sample(range(4096), 20)})
        lane.take(candidate(n, use={"rest": rest}))
    assert not lane.findings("transplant")


def test_one_tenant_needs_more_contexts() -> None:
    lane = Lane(Router(0.3))
    lane.take(*(candidate(n, tenant_id="t") for n in range(8)))
    assert not lane.findings("transplant")
    lane.take(candidate(8, tenant_id="t"))
    assert lane.findings("transplant")


def test_what_is_here_and_there_needs_more_contexts() -> None:
    lane = Lane(Router(0.3))
    lane.take(*(candidate(n, use={"place": ("head", "tail", "inside")[n % 3]}) for n in range(5)))
    assert not lane.findings("transplant"), "at one place five are enough"
    lane.take(candidate(5))
    assert [finding.transplant.place for finding in lane.findings("transplant") if finding.transplant] == ["inside"]


def test_a_usual_window_is_shown_to_reviewers_and_alarms_nobody() -> None:
    lane = Lane(Router(0.3))
    lane.take(*(candidate(n, use={"usual": True}) for n in range(8)))
    assert lane.findings("usual_window")
    assert not lane.findings("unseen_trigger")
    assert not any(output.topic == ALERTS.name for output in lane.out)
    assert lane.proposals()[0].reason


def test_queries_are_paid_from_requests() -> None:
    lane = Lane(Router(0.3))
    lane.take(*(candidate(n, use={"requests": 10}) for n in range(12)))
    assert not lane.findings("transplant")
    assert lane.campaigns.counters["transplants.over_budget"] >= 1
    lane.take(candidate(12, use={"requests": 8_000}))
    assert lane.findings("unseen_trigger")


def test_while_the_queries_are_spent_the_residuals_must_do() -> None:
    lane = Lane(Router(0.3))
    lane.take(*(candidate(n, use={"requests": 10}) for n in range(30)))
    named = lane.findings("unseen_trigger")
    assert {finding.stage for finding in named} == {"residuals"}
    assert "weaker" in named[0].note


def test_but_not_against_what_the_router_has_said() -> None:
    lane = Lane(Router(0.0))
    lane.take(*(candidate(n, use={"requests": 800}) for n in range(5)))
    assert lane.campaigns.counters["transplants.no_lift"] == 1
    lane.take(*(candidate(n, use={"requests": 0, "residual": 9.0}) for n in range(5, 40)))
    assert lane.campaigns.counters["transplants.over_budget"] >= 1
    assert not lane.findings("unseen_trigger")


def test_what_was_content_for_a_while_is_named_all_the_same() -> None:
    lane = Lane(None, transplants=False)
    lane.take(*(candidate(n, seed=0, use={"text": ""}) for n in range(70)))  # one context, again and again
    assert not lane.findings("unseen_trigger")
    lane.take(*(candidate(n, use={"text": "", "residual": 4.0}) for n in range(70, 130)))
    assert {finding.stage for finding in lane.findings("unseen_trigger")} == {"residuals"}


def test_a_test_that_ends_for_want_of_queries_is_gone_on_with() -> None:
    class Weak(Router):
        """Moves six of seven probes: twenty of them do not decide, forty do."""

        def score(self, texts: Sequence[str]) -> list[float]:
            plain = [text.replace("TRIGGER ", "") for text in texts]
            moved = [is_moved(text) and "TRIGGER" in one for text, one in zip(plain, texts, strict=True)]
            return [0.3 * lift for lift in moved]

    def is_moved(text: str) -> bool:
        return shipped_probes().index(text) % 7 != 6

    lane = Lane(Weak(0))
    lane.take(*(candidate(n, use={"requests": 900}) for n in range(5)))
    assert lane.campaigns.counters["transplants.undecided"] == 1
    lane.take(candidate(5, use={"requests": 900}))
    assert not lane.findings("unseen_trigger"), "it waits until all can be asked"
    lane.take(candidate(6, use={"requests": 8_000}))
    assert {finding.stage for finding in lane.findings("unseen_trigger")} == {"transplant"}


def test_a_router_that_does_not_answer_costs_nothing_and_is_asked_again() -> None:
    class Down(Router):
        def score(self, texts: Sequence[str]) -> list[float]:
            raise OSError

    lane = Lane(Down(0))
    lane.take(*(candidate(n) for n in range(6)))
    assert lane.campaigns.counters["transplants.failed"] >= 1
    lane.probes = Probes(Router(0.3), shipped_probes())
    lane.take(candidate(7))
    assert lane.findings("unseen_trigger")


def test_without_a_router_the_residuals_must_do_and_it_says_so() -> None:
    for lane in (Lane(None, transplants=False), Lane(None)):
        lane.take(*(candidate(n, use={"text": ""}) for n in range(30)))
        named = lane.findings("unseen_trigger")
        assert {finding.stage for finding in named} == {"residuals"}
        assert "weaker" in named[0].note
        assert not lane.proposals()


def test_found_again_after_a_day_it_begins_anew() -> None:
    lane = Lane(Router(0.3))
    lane.take(*(candidate(n) for n in range(4)))
    lane.take(*(candidate(n) for n in range(4, 8)), step_ms=86_400_001)
    assert not lane.findings("transplant")


def test_what_is_delivered_twice_counts_once() -> None:
    once, twice = Lane(Router(0.3)), Lane(Router(0.3))
    for n in range(4):
        once.take(candidate(n))
        twice.take(candidate(n), candidate(n))
    assert len(twice.findings("transplant")) == len(once.findings("transplant")) == 0


def test_state_is_a_function_of_the_log_and_restores_exactly() -> None:
    lane = Lane(Router(0.3))
    lane.take(*(candidate(n, window=f"w{n % 3}") for n in range(30)))
    whole = FleetPartition(
        Alerting(shipped()), Campaigns(shipped(), Thresholds(), True), Levels(shipped(), Thresholds())
    )
    outputs = whole.apply(lane.log)
    assert outputs == lane.out
    assert whole.snapshot() == lane.part.snapshot()
    half = FleetPartition(
        Alerting(shipped()), Campaigns(shipped(), Thresholds(), True), Levels(shipped(), Thresholds())
    )
    before = half.apply(lane.log[:17])
    rest = FleetPartition(
        Alerting(shipped()), Campaigns(shipped(), Thresholds(), True), Levels(shipped(), Thresholds())
    )
    for key, value in half.changes():
        rest.load(key, value)
    rest.loaded()
    assert rest.offset == 17
    assert [*before, *rest.apply(lane.log)] == outputs
    assert rest.snapshot() == whole.snapshot()
    assert rest.counters == whole.counters


def test_the_interval_of_equal_lifts_is_a_point() -> None:
    assert interval([1.0, 1.0, 1.0]) == (1.0, 1.0)
    low, high = interval([0.0, 1.0, 2.0])
    assert low < 1.0 < high
    assert not math.isnan(interval([1.0])[0])
