import random
import threading
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors.catalogue import Catalogue, records_of
from detectors.text import PromptBatch, read_prompts, read_texts
from detectors.thresholds import Thresholds
from detectors.triggers.detector import TriggerDetector
from schemas.events import Request
from schemas.triggers import Trigger
from schemas.verdicts import Reason
from tests.detectors.triggers.gadgets import PROMPTS, gadget

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PHRASE = (
    "Before you conclude, weigh the advantages of every alternative against its drawbacks and lay out your "
    "reasoning one step at a time."
)


def trigger(name: str, text: str, **fields: object) -> Trigger:
    given = {"kind": "lexical", "review": "approved", "version": 1, **fields}
    return Trigger(trigger_id=name, text=text, updated_at=NOW, **given)  # type: ignore[arg-type]


def catalogue(*triggers: Trigger) -> Catalogue:
    return records_of(triggers).catalogue()


@pytest.fixture(scope="module")
def gibberish() -> str:
    return gadget(random.Random(11))


def only(detector: TriggerDetector, text: str) -> Reason:
    (answer,) = detector.score_batch(read_texts([text]))
    assert isinstance(answer, Reason)
    return answer


def test_a_reason_says_which_trigger_where_and_how_much_of_it(gibberish: str) -> None:
    detector = TriggerDetector(Thresholds(), catalogue(trigger("t1", gibberish, version=4, direction="down")))
    reason = only(detector, f"{PROMPTS[0]} {gibberish}.")
    assert reason.flagged
    assert reason.score > reason.threshold
    assert (reason.detector, reason.kind, reason.stage) == ("triggers", "known_trigger", "lexical")
    assert (reason.trigger_id, reason.trigger_version, reason.direction) == ("t1", 4, "down")
    assert reason.window == "trigger:t1"
    assert reason.share == pytest.approx(1.0)
    assert reason.span is not None
    begin, end = reason.span
    assert f"{PROMPTS[0]} {gibberish}."[begin:end] == gibberish
    assert gibberish not in reason.note


def test_a_part_of_a_trigger_is_a_fragment() -> None:
    whole = gadget(random.Random(11), tokens=16)
    detector = TriggerDetector(Thresholds({"triggers.share": 0.05}), catalogue(trigger("t1", whole)))
    reason = only(detector, f"{PROMPTS[0]} {' '.join(whole.split(' ')[:5])}")
    assert reason.flagged
    assert reason.stage == "fragment"
    assert only(detector, f"{PROMPTS[0]} {whole}").stage == "lexical"


def test_a_span_in_the_tail_counts_from_the_end_and_maps_through_folding(gibberish: str) -> None:
    detector = TriggerDetector(Thresholds(), catalogue(trigger("t1", gibberish)))
    disguised = "\u200b".join(gibberish.upper())
    text = " ".join(PROMPTS * 10) + f" {disguised} é end"
    reason = only(detector, text)
    assert reason.span is not None
    begin, end = reason.span
    assert begin < 0
    assert text[begin : end or None].strip() == disguised


def test_what_is_far_from_every_trigger_is_a_number_and_what_has_no_text_is_none(gibberish: str) -> None:
    detector = TriggerDetector(Thresholds(), catalogue(trigger("t1", gibberish)))
    request = Request(event_id="e", event_time=NOW, request_id="r", tenant_id="t", principal_hash="p")
    assert detector.score_batch(read_texts(PROMPTS)) == [0.0] * len(PROMPTS)
    assert detector.score_batch(read_prompts([request])) == [None]
    assert detector.score_batch(read_texts([])) == []


def test_part_of_a_trigger_is_near_but_not_flagged(gibberish: str) -> None:
    detector = TriggerDetector(Thresholds({"triggers.bits": 60.0}), catalogue(trigger("t1", gibberish)))
    half = " ".join(gibberish.split(" ")[:6])
    reason = only(detector, f"{half} {PROMPTS[1]}")
    assert not reason.flagged
    assert reason.trigger_id == "t1"
    assert reason.share is not None
    assert 0.5 <= reason.share < 0.9


def test_only_approved_triggers_are_matched(gibberish: str) -> None:
    proposed = trigger("t1", gibberish, review="proposed")
    detector = TriggerDetector(Thresholds(), catalogue(proposed))
    assert detector.score_batch(read_texts([gibberish])) == [0.0]


def test_thresholds_are_read_at_each_batch(gibberish: str) -> None:
    thresholds = Thresholds()
    detector = TriggerDetector(thresholds, catalogue(trigger("t1", gibberish)))
    assert only(detector, gibberish).flagged
    thresholds.swap({"triggers.bits": 500.0}, version=7)
    assert detector.score_batch(read_texts([gibberish])) != [None]
    thresholds.swap({"triggers.bits": 110.0}, version=8)
    reason = only(detector, gibberish)
    assert not reason.flagged or reason.score > 110
    assert reason.threshold_version == 8


@pytest.mark.parametrize("kind", ["lexical", "semantic", "both"])
def test_an_answer_does_not_depend_on_the_batch(kind: str, gibberish: str) -> None:
    entries = catalogue(trigger("t1", gibberish, kind=kind), trigger("t2", PHRASE, kind=kind))
    detector = TriggerDetector(Thresholds(), entries)
    texts = [*PROMPTS, f"{gibberish} {PROMPTS[0]}", f"{PROMPTS[2]} {PHRASE}", ""]
    together = detector.score_batch(read_texts(texts))
    assert together == [detector.score_batch(read_texts([text]))[0] for text in texts]


def test_a_phrase_is_recognised_by_meaning_when_its_words_are_exchanged() -> None:
    paraphrase = (
        "Before concluding, weigh each alternative's advantages against the drawbacks and explain your "
        "reasoning step by step."
    )
    detector = TriggerDetector(
        Thresholds({"triggers.cosine": 0.7}), catalogue(trigger("p", PHRASE, kind="semantic"))
    )
    reason = only(detector, f"{paraphrase} {PROMPTS[3]}")
    assert (reason.flagged, reason.stage, reason.trigger_id) == (True, "static", "p")
    assert reason.span is not None
    assert reason.span[0] < len(paraphrase) / 3
    assert not any(isinstance(a, Reason) and a.flagged for a in detector.score_batch(read_texts(PROMPTS)))


class Judge:
    """A second stage that gives set cosines and remembers what it was asked."""

    def __init__(self, cosine: float) -> None:
        self.cosine = cosine
        self.asked: list[tuple[str, str]] = []

    def cosines(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        self.asked += pairs
        return np.full(len(pairs), self.cosine, np.float32)


@pytest.mark.parametrize(
    ("cosine", "granted", "stage", "flagged"),
    [(0.9, True, "transformer", True), (0.2, True, "transformer", False), (0.2, False, "static", True)],
)
def test_the_second_stage_decides_while_its_budget_lasts(
    cosine: float, granted: bool, stage: str, flagged: bool
) -> None:
    judge = Judge(cosine)
    detector = TriggerDetector(Thresholds(), catalogue(trigger("p", PHRASE, kind="semantic")), judge)
    asked: list[int] = []

    def grant(i: int) -> bool:
        asked.append(i)
        return granted

    answers = detector.score_batch(read_texts([PROMPTS[0], f"{PHRASE} {PROMPTS[3]}"]), grant)
    reason = answers[1]
    assert isinstance(reason, Reason)
    assert (reason.stage, reason.flagged) == (stage, flagged)
    assert judge.asked == ([(judge.asked[0][0], PHRASE)] if granted else [])
    assert ("budget" in reason.note) != granted
    assert detector.score_batch(read_texts(PROMPTS), grant) == [0.0] * len(PROMPTS)
    assert asked == [1], "only what is near costs budget"


def test_a_swap_under_use_never_mixes_two_catalogues(gibberish: str) -> None:
    """Every batch is judged by one catalogue: the ids and versions in it belong together."""
    rng = random.Random(5)
    others = [gadget(rng) for _ in range(40)]
    versions = [
        catalogue(*(trigger(f"v{v}-{i}", text, version=v) for i, text in enumerate([gibberish, *others[: 10 * v]])))
        for v in (1, 2, 3, 4)
    ]
    detector = TriggerDetector(Thresholds(), versions[0])
    batch: PromptBatch = read_texts([f"{gibberish} {prompt}" for prompt in PROMPTS])
    done = threading.Event()

    def swap_all() -> None:
        for _ in range(5):
            for version in versions:
                detector.swap(version)
        done.set()

    swapper = threading.Thread(target=swap_all)
    swapper.start()
    seen = set()
    while True:
        finished = done.is_set()
        answers = detector.score_batch(batch)
        reasons = [answer for answer in answers if isinstance(answer, Reason)]
        assert len(reasons) == len(PROMPTS)
        (version,) = {reason.trigger_version for reason in reasons}
        assert {reason.trigger_id for reason in reasons} == {f"v{version}-0"}
        seen.add(version)
        if finished:
            break
    swapper.join()
    assert 4 in seen
    assert detector.catalogue is versions[-1]
