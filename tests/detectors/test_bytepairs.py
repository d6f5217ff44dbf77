"""Byte-pair encoding against tiktoken, which has the same ranks and an engine of regular expressions."""

import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from detectors import vocabulary
from detectors.bytepairs import _ASSIGNED, _LOWER, _MARK, _UPPER, BytePairs, _classes
from detectors.folding import fold
from detectors.novelty import artefact, tokens

# Unassigned characters may be assigned in the newer tables of tiktoken's engine.
ASSIGNED = st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=80)
WORDS = st.lists(
    st.sampled_from(["the", "thé", "HTTPServer", "x1", "12345", "naïve", "ǅ", "...", "中文", "e\u0301"])
)
TEXTS = ASSIGNED | WORDS.map(" ".join) | WORDS.map("".join)


@cache
def encoders(cased: bool) -> tuple[BytePairs, tiktoken.Encoding]:
    known = artefact.load()[0].parts.base.tokens if cased else vocabulary.vocabulary().pairs.tokens
    ranks = {token: rank for rank, token in enumerate(known)}
    pattern = tokens.PATTERN if cased else vocabulary.PATTERN
    return BytePairs(known, cased), tiktoken.Encoding(
        "reference", pat_str=pattern, mergeable_ranks=ranks, special_tokens={}
    )


def rows(pairs: BytePairs, texts: Sequence[str]) -> list[list[int]]:
    flat, offsets = pairs.encode(texts)
    return [flat[begin:end].tolist() for begin, end in pairwise(offsets.tolist())]


@given(st.lists(TEXTS, max_size=4))
def test_a_batch_has_the_tokens_that_tiktoken_gives_each_text(texts: list[str]) -> None:
    for cased, ready in (
        (True, [tokens.normalise(text) for text in texts]),
        (False, [fold(text) for text in texts]),
    ):
        pairs, reference = encoders(cased)
        assert rows(pairs, ready) == [reference.encode_ordinary(text) for text in ready]


@pytest.mark.parametrize("cased", [True, False])
def test_half_a_surrogate_pair_is_a_question_mark(cased: bool) -> None:
    pairs, _ = encoders(cased)
    assert rows(pairs, ["a\ud800", "b"]) == rows(pairs, ["a?", "b"])


def test_no_text_has_no_token() -> None:
    pairs, _ = encoders(False)
    assert rows(pairs, []) == []
    assert rows(pairs, ["", " \t\n", "a"])[:2] == [[], []]


def test_no_character_with_a_class_is_left_out_of_the_table() -> None:
    """The table asks for a quarter of all code points only."""
    classes = _classes()
    left_out = [c for c in range(0x110000) if not any(plane.start <= c < plane.stop for plane in _ASSIGNED)]
    assert {unicodedata.category(chr(c)) for c in left_out} <= {"Cn", "Co"}
    assert not classes[left_out].any()
    assert classes[[0x1D400, 0x20000, 0xE0100]].tolist() == [_UPPER, _LOWER, _MARK]
