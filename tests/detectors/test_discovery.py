"""The same odd window under many prompts of several callers, and nothing less."""

from detectors.contract import Case, PromptFacts
from detectors.discovery import FORGET_S, Discovery, windows_of
from detectors.thresholds import Thresholds
from schemas.events import without_text
from schemas.verdicts import Reason
from tests.factories import NOON_MS, request, route

TRIGGER = "first support single against compute table subset bed"


def case(text: str, principal: str = "p1", novelty: float = 0.999, seconds: float = 0.0) -> Case:
    facts = PromptFacts(scores={"novelty": novelty}, windows=windows_of(text, text))
    return Case(
        time=NOON_MS / 1000 + seconds,
        request=without_text(request(principal=principal)),
        route=route(),
        prompt=facts,
    )


def feed(detector: Discovery, cases: list[Case]) -> list[Reason]:
    reasons = []
    for one in cases:
        answer = detector.score(one)
        if isinstance(answer, Reason):
            reasons.append(answer)
        detector.learn(one, isinstance(answer, Reason))
    return reasons


def uses(count: int, callers: int = 3, suffix: bool = True, **fields: float) -> list[Case]:
    bodies = [f"question number {i} about topic {i * 7} in some detail" for i in range(count)]
    texts = [f"{body} {TRIGGER}" if suffix else f"{TRIGGER} {body}" for body in bodies]
    return [case(text, f"p{i % callers}", **fields) for i, text in enumerate(texts)]


def test_a_suffix_and_a_prefix_are_named_from_the_sixth_body_on() -> None:
    for suffix in (True, False):
        reasons = feed(Discovery(Thresholds()), uses(10, suffix=suffix))
        assert len(reasons) == 5
        assert {reason.kind for reason in reasons} == {"unseen_trigger"}
        assert len({reason.window for reason in reasons}) == 1
        assert all(reason.flagged for reason in reasons)


def test_one_caller_may_have_an_odd_template() -> None:
    assert feed(Discovery(Thresholds()), uses(30, callers=1)) == []


def test_the_same_prompt_again_is_no_further_body() -> None:
    again = [case(f"the same question {TRIGGER}", f"p{i % 5}") for i in range(30)]
    assert feed(Discovery(Thresholds()), again) == []


def test_ordinary_prompts_leave_nothing() -> None:
    detector = Discovery(Thresholds())
    assert feed(detector, uses(30, novelty=0.9)) == []
    assert detector.snapshot() == {}


def test_what_was_not_used_for_an_hour_begins_anew() -> None:
    detector = Discovery(Thresholds())
    feed(detector, uses(5))
    assert feed(detector, uses(5, seconds=FORGET_S + 1)) == []


def test_without_a_text_it_cannot_judge() -> None:
    blind = case("x")
    blind.prompt = PromptFacts()
    assert Discovery(Thresholds()).score(blind) is None
