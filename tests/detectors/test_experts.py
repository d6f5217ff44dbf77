"""Experts: silenced and crowded ones are found once a model is known, and only then."""

import numpy as np
import pytest

from detectors.contract import Answer, Case, PromptFacts
from detectors.experts import LEAST, LEAST_TOKENS, MOST_EXPERTS, Experts
from detectors.judge import Judge, JudgeLimits
from detectors.panel import build_panel
from detectors.thresholds import Thresholds
from loadtests.evaluations.experts import Attack, Model, Shape, activate, case_of, silence
from schemas.events import AnyEvent
from schemas.verdicts import Reason
from tests.detectors import checks
from tests.factories import outcome, records, request, route

SHAPE = Shape("small", 4, 32, 4)


def judge(
    detector: Experts, model: Model, n: int, attack: Attack | None = None, learn: bool = True
) -> list[Answer]:
    answers = []
    for number in range(n):
        case = case_of(number, *model.load(attack))
        answers.append(detector.score(case))
        if learn:
            detector.learn(case, isinstance(answers[-1], Reason))
    return answers


@pytest.fixture(scope="module")
def known() -> tuple[Experts, Model]:
    detector, model = Experts(Thresholds()), Model(SHAPE, seed=3)
    answers = judge(detector, model, 1500)
    assert answers[:LEAST] == [None] * LEAST, "nothing is said of a model that is not known"
    assert not [answer for answer in answers if isinstance(answer, Reason)]
    assert sum(answer is not None for answer in answers) > 500
    return detector, model


@pytest.mark.parametrize(("attack", "kind"), [(silence(0.2), "experts_silenced"), (activate(2), "experts_crowded")])
def test_an_attack_on_the_routing_is_found(known: tuple[Experts, Model], attack: Attack, kind: str) -> None:
    detector, model = known
    answers = judge(detector, model, 60, attack, learn=False)
    found = [answer for answer in answers if isinstance(answer, Reason)]
    assert len(found) > 40
    assert {reason.kind for reason in found} == {kind}
    assert all(reason.score >= reason.threshold for reason in found)


def test_ordinary_loads_afterwards_are_clean(known: tuple[Experts, Model]) -> None:
    detector, model = known
    assert not [answer for answer in judge(detector, model, 300, learn=False) if isinstance(answer, Reason)]


def test_an_attack_is_not_learned() -> None:
    detector, model = Experts(Thresholds()), Model(SHAPE, seed=4)
    judge(detector, model, 1200)
    before = len([answer for answer in judge(detector, model, 100, silence(0.2)) if isinstance(answer, Reason)])
    after = len([answer for answer in judge(detector, model, 100, silence(0.2)) if isinstance(answer, Reason)])
    assert before > 50
    assert after > 50


def test_each_topic_has_a_baseline_of_its_own(known: tuple[Experts, Model]) -> None:
    detector, model = known
    topic, load = model.load()
    case = case_of(0, topic, load)
    assert detector.score(case) is not None
    case.prompt = PromptFacts(likeness=0)
    other = detector.score(case)
    assert other is None or other != detector.score(case_of(0, topic, load))


@pytest.mark.parametrize(
    "load", [[], [[]], [[1], []], [[LEAST_TOKENS - 1], [99]], [[100] * 4096] * (MOST_EXPERTS // 4096 + 1), [[0, 0]]]
)
def test_a_load_that_says_nothing_cannot_be_judged(load: list[list[int]]) -> None:
    detector = Experts(Thresholds())
    case: Case = case_of(0, 1, np.zeros((1, 1), np.int64))
    assert case.outcome is not None
    case.outcome.expert_load = load
    assert detector.score(case) is None
    detector.learn(case, flagged=False)
    assert not detector.snapshot()


def test_layers_may_differ_in_size_and_counts_be_huge() -> None:
    detector = Experts(Thresholds())
    for number in range(4 * LEAST):
        case = case_of(number, 1, np.zeros((1, 1), np.int64))
        assert case.outcome is not None
        case.outcome.expert_load = [[2**40, 0, 2**40], [40, number]]
        answer = detector.score(case)
        detector.learn(case, isinstance(answer, Reason))
    assert isinstance(answer, float | Reason)


def test_at_the_verdict_there_is_no_load_yet() -> None:
    assert Experts(Thresholds()).score(checks.case_of(route={})) is None


def test_an_outcome_is_compared_by_its_prompts_likeness_also_after_a_restart() -> None:
    seen: list[int] = []

    class Watched(Experts):
        def score(self, case: Case) -> Answer:
            if case.outcome is not None:
                seen.append(case.prompt.likeness)
            return super().score(case)

    def judge_of() -> Judge:
        return Judge(panel, [Watched(panel.thresholds)], JudgeLimits())

    panel = build_panel(Thresholds())
    stream: list[AnyEvent] = [
        request("a"),
        route("a"),
        outcome("a", expert_load=[[50, 50]]),
        outcome("a", event_id="late"),
    ]
    (facts,) = panel.facts([request("a")])
    judge, again = judge_of(), judge_of()
    judge.apply(records(stream)[:3])
    for key, value in judge.snapshot().items():
        again.load(key, value)
    again.loaded()
    again.apply(records(stream)[3:])
    assert facts.likeness
    assert seen == [facts.likeness] * 2
