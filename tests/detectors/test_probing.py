"""Probing: climbs are seen by how many near-duplicates there are and in how many places they differ."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors.probing import FORGET_S, SKETCH, Probing, compare, sketches
from detectors.text import read_texts
from detectors.thresholds import DEFAULTS, Thresholds
from detectors.triggers.grow import grow
from schemas.verdicts import Reason
from tests.detectors.checks import START, case_of, feed

LIMIT = int(DEFAULTS["probing.run"])
WORDS = list("abcdefghijklmnopqrstuvwx")


def ask(detector: Probing, texts: list[str], principal: str = "p0", every_s: float = 1.0) -> list[Reason]:
    """What was flagged of one caller's prompts."""
    batch = sketches(read_texts(texts))
    cases = [case_of(principal, START + i * every_s) for i in range(len(texts))]
    for case, sketch in zip(cases, batch, strict=True):
        case.prompt.sketch = sketch
    return [answer for answer in feed(detector, cases) if isinstance(answer, Reason)]


def edited(place: int, n: int, words: list[str] = WORDS) -> list[str]:
    """The words with one of them replaced, n times."""
    return [" ".join([*words[:place], f"word{i}", *words[place + 1 :]]) for i in range(n)]


def climb(tokens: int = 10, seed: int = 0) -> list[str]:
    """Every text that a hill climb asks a router for: one that likes long words."""
    asked: list[str] = []

    def router(texts: Sequence[str]) -> NDArray[np.float64]:
        asked.extend(texts)
        return np.array([sum(len(word) for word in set(text.split())) / 200 for text in texts])

    grow(router, "wordlike", tokens=tokens, seed=seed)
    return asked


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("body", ["", " What is the capital of France, and why is it there of all places?"])
def test_a_hill_climb_is_found(seed: int, body: str) -> None:
    texts = [gadget + body for gadget in climb(seed=seed)]
    found = ask(Probing(Thresholds()), texts)
    assert found
    assert {reason.kind for reason in found} == {"probing"}
    assert found[0].seen is not None
    assert found[0].seen >= DEFAULTS["probing.places"]
    suffix = [body + " " + gadget for gadget in climb(seed=seed)]
    assert ask(Probing(Thresholds()), suffix)


def test_a_slot_template_differs_in_one_place_for_ever() -> None:
    assert not ask(Probing(Thresholds()), edited(7, 20 * LIMIT))


def test_different_prompts_and_retries_are_no_probe() -> None:
    rng = np.random.default_rng(1)
    different = [" ".join(rng.permutation(WORDS)) for _ in range(300)]
    assert not ask(Probing(Thresholds()), different)
    assert not ask(Probing(Thresholds()), [text for text in different[:3] for _ in range(100)])


def test_it_is_said_once_for_so_many_duplicates() -> None:
    texts = [text for place in range(0, 16, 2) for text in edited(place, LIMIT)]
    found = ask(Probing(Thresholds()), texts)
    assert all(reason.score % LIMIT < 1 for reason in found)
    assert 1 <= len(found) <= 8


def test_what_was_an_hour_ago_is_forgotten() -> None:
    texts = [text for place in range(8) for text in edited(2 * place, LIMIT // 8)]
    assert not ask(Probing(Thresholds()), texts * 2, every_s=FORGET_S)


def test_callers_are_apart() -> None:
    detector = Probing(Thresholds())
    texts = [text for place in range(0, 16, 2) for text in edited(place, 8)]
    found = [reason for i, text in enumerate(texts) for reason in ask(detector, [text], principal=f"p{i % 4}")]
    assert not found


def test_without_text_it_cannot_judge() -> None:
    detector = Probing(Thresholds())
    assert detector.score(case_of()) is None
    detector.learn(case_of(), flagged=False)
    assert not detector.snapshot()


def test_where_an_edit_is() -> None:
    for place in range(len(WORDS)):
        one, other = sketches(read_texts(edited(place, 2)))
        assert compare(one, other).shared > 0.7
    front, back = (compare(*sketches(read_texts(edited(place, 2)))) for place in (0, len(WORDS) - 1))
    assert front.place != back.place


@given(st.lists(st.text(max_size=80), min_size=1, max_size=8))
def test_sketches_are_of_each_prompt_alone(texts: list[str]) -> None:
    together = sketches(read_texts(texts))
    assert together == [sketches(read_texts([text]))[0] for text in texts]
    for one in filter(None, together):
        assert len(one) == SKETCH
        assert compare(one, one).shared > 0.75
        for other in filter(None, together):
            edit = compare(one, other)
            assert edit == compare(other, one)
            assert 0 <= edit.shared <= 1
            assert 0 <= edit.place <= 36
