"""The shipped novelty detector: what it answers, whatever it is given."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.novelty import artefact
from detectors.novelty.detector import NoveltyDetector
from detectors.text import read_prompts, read_texts
from detectors.thresholds import Thresholds
from loadtests.attacks.text import FAMILIES
from loadtests.prompts import benign
from schemas.events import Request
from schemas.verdicts import Reason
from tests.detectors.checks import case_of

MAX_BYTES = 10_000_000
PROMPTS = [prompt.text for prompt in benign(None)[:200]]  # of the grammar: the same with and without POINTSMAN_DATA


@pytest.fixture(scope="module")
def detector() -> NoveltyDetector:
    return NoveltyDetector(Thresholds())


def scores(detector: NoveltyDetector, texts: list[str]) -> list[float]:
    answers = detector.score_batch(read_texts(texts))
    return [answer.score if isinstance(answer, Reason) else answer or 0.0 for answer in answers]


def test_the_artefact_ships_small() -> None:
    assert artefact.PATH.stat().st_size <= MAX_BYTES


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=700), min_size=1, max_size=6), st.randoms())
def test_an_answer_does_not_depend_on_the_batch(
    detector: NoveltyDetector, texts: list[str], rng: random.Random
) -> None:
    together = scores(detector, texts)
    order = list(range(len(texts)))
    rng.shuffle(order)
    assert scores(detector, [texts[i] for i in order]) == [together[i] for i in order]
    assert [scores(detector, [text])[0] for text in texts] == together
    assert all(0 <= score < 1 for score in together)


def test_white_space_says_nothing(detector: NoveltyDetector) -> None:
    rng = random.Random(3)
    texts = [FAMILIES["uniform_tokens"](rng, prompt, "suffix") for prompt in PROMPTS[:40]]
    spread = ["\n " + text.replace(" ", rng.choice(("  ", "\t", "\n", " \r\n"))) + "\n" for text in texts]
    assert scores(detector, spread) == scores(detector, texts)


def test_without_text_it_cannot_judge(detector: NoveltyDetector) -> None:
    with_text = case_of(request={"prompt_text": "hello there"}).request
    answers = detector.score_batch(read_prompts([case_of().request, with_text]))
    assert answers[0] is None
    assert answers[1] is not None


def test_head_and_tail_are_judged_as_the_whole_text(detector: NoveltyDetector) -> None:
    text = " ".join(PROMPTS[:30]) + " xqz Blorpify )( ostenberg%$ ulating WIDGETcaut"
    request: Request = case_of(request={"prompt_head": text[:600], "prompt_tail": text[-600:]}).request
    whole = case_of(request={"prompt_text": text}).request
    by_ends, by_text = detector.score_batch(read_prompts([request, whole]))
    assert by_ends == by_text


def test_an_attack_is_a_reason_and_plain_prompts_are_none(detector: NoveltyDetector) -> None:
    rng = random.Random(7)
    attacks = [
        FAMILIES[name](rng, prompt, "suffix") for prompt in PROMPTS for name in ("gcg_like", "glued_fragments")
    ]
    found = [a for a in detector.score_batch(read_texts(attacks)) if isinstance(a, Reason)]
    plain = [a for a in detector.score_batch(read_texts(PROMPTS)) if isinstance(a, Reason)]
    assert len(found) > 0.8 * len(attacks)
    assert len(plain) < 0.1 * len(PROMPTS)
    for reason in found:
        assert reason.flagged == (reason.score >= reason.threshold)
        assert (reason.detector, reason.kind) == ("novelty", "novel_text")
        assert reason.score >= Thresholds()["novelty.prior"]
    assert not any(reason.flagged for reason in plain)


def test_thresholds_are_followed() -> None:
    thresholds = Thresholds()
    detector = NoveltyDetector(thresholds)
    texts = read_texts(PROMPTS)
    thresholds.swap({"novelty.flag": 0.0, "novelty.prior": 0.0}, version=7)
    answers = detector.score_batch(texts)
    assert all(isinstance(answer, Reason) and answer.flagged for answer in answers)
    assert {answer.threshold_version for answer in answers if isinstance(answer, Reason)} == {7}


def test_no_batch_is_no_answer(detector: NoveltyDetector) -> None:
    assert detector.score_batch(read_texts([])) == []


def test_two_loads_give_the_same(detector: NoveltyDetector) -> None:
    artefact.load.cache_clear()
    again = NoveltyDetector(Thresholds())
    assert scores(again, PROMPTS) == scores(detector, PROMPTS)
    assert np.isfinite(scores(again, PROMPTS)).all()
