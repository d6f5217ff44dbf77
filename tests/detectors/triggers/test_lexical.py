import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors.text import read_texts, tokenise
from detectors.triggers.lexical import UNIT_TOKENS, LexicalIndex, flag_bits, units_of, views_of
from detectors.vocabulary import vocabulary
from loadtests.attacks.mutations import MUTATIONS, PLACEMENTS
from tests.detectors.triggers.gadgets import PROMPTS, WORDS, gadget

SHARE = 0.5
# The least part of the mutated triggers that must be recognised as themselves, above the flag threshold.
FLOORS = {"leet": 0.6, "replaced_30": 0.9, "replaced_50": 0.2, "split_between_ends": 0.9}


@pytest.fixture(scope="module")
def triggers() -> list[str]:
    rng = random.Random(7)
    return [gadget(rng) for _ in range(300)]


@pytest.fixture(scope="module")
def index(triggers: list[str]) -> LexicalIndex:
    return LexicalIndex(views_of(triggers))


def recognised(index: LexicalIndex, prompts: list[str]) -> float:
    batch = read_texts(prompts)
    match = index.match(batch.tokens, batch.lengths, SHARE)
    found = (match.entry == np.arange(len(prompts))) & (match.score > flag_bits(len(index), 22))
    return float(found.mean())


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_trigger_is_recognised_wherever_it_stands(
    placement: str, index: LexicalIndex, triggers: list[str]
) -> None:
    rng = random.Random(placement)
    prompts = [PLACEMENTS[placement](trigger, rng.choice(PROMPTS)) for trigger in triggers]
    assert recognised(index, prompts) >= FLOORS.get(placement, 0.98)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_trigger_is_recognised_in_disguise(mutation: str, index: LexicalIndex, triggers: list[str]) -> None:
    rng = random.Random(mutation)
    mutated = [MUTATIONS[mutation](trigger, rng, WORDS) for trigger in triggers]
    prompts = [f"{trigger} {rng.choice(PROMPTS)}" for trigger in mutated]
    assert recognised(index, prompts) >= FLOORS.get(mutation, 0.96)


def test_a_suffix_of_a_long_prompt_is_found(index: LexicalIndex, triggers: list[str]) -> None:
    assert recognised(index, [" ".join(PROMPTS * 9) + trigger for trigger in triggers]) >= 0.98


def test_ordinary_prompts_are_not_near(index: LexicalIndex) -> None:
    batch = read_texts(PROMPTS)
    match = index.match(batch.tokens, batch.lengths, SHARE)
    assert (match.entry == -1).all()
    assert (match.score == 0).all()


def brute_force(rows: list[list[int]], sets: list[set[int]], bits: NDArray[np.float32]) -> list[bool]:
    """Whether a row holds half of the bits of any trigger, and at least 20, anywhere in it."""
    held = [[bits[list(s & set(row))].sum() for s in sets] for row in rows]
    least = [max(SHARE * bits[list(s)].sum(), 20) for s in sets]
    return [any(h >= floor for h, floor in zip(line, least, strict=True)) for line in held]


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_prefix_filtering_loses_nothing(seed: int) -> None:
    """Rows no longer than a span: what the filter and the verification find is what comparing with all finds."""
    rng = random.Random(seed)
    bits = vocabulary().bits
    pool = [rng.randrange(256, 2000) for _ in range(30)]
    triggers = [np.array(rng.sample(pool, 10), np.int32) for _ in range(20)]
    rows = [rng.sample(pool, 14) for _ in range(20)]
    tokens = np.array(rows, np.int32)
    match = LexicalIndex([[t] for t in triggers]).match(tokens, np.full(20, 14, np.int32), SHARE)
    assert (match.entry >= 0).tolist() == brute_force(rows, [set(t.tolist()) for t in triggers], bits)


def test_the_span_is_tight() -> None:
    trigger = gadget(random.Random(3))
    index = LexicalIndex(views_of([trigger]))
    batch = read_texts([PROMPTS[0] + " " + trigger + " " + PROMPTS[1]])
    match = index.match(batch.tokens, batch.lengths, SHARE)
    span = batch.tokens[0, match.begin[0] : match.end[0]]
    assert span.tolist() == tokenise([trigger])[0].tolist()
    assert match.share[0] == pytest.approx(1.0)


def test_long_texts_are_matched_in_units() -> None:
    template = " ".join(PROMPTS)
    units = units_of(tokenise([template])[0])
    assert len(units) > 1
    assert all(UNIT_TOKENS / 2 <= len(unit) <= UNIT_TOKENS for unit in units)
    index = LexicalIndex(views_of(["quasar zither", template]))
    batch = read_texts([template + " and then more of it " * 400])
    assert index.match(batch.tokens, batch.lengths, SHARE).entry.tolist() == [1]


@pytest.mark.parametrize("triggers", [[], [""], ["  "], ["the"]])
def test_an_index_of_nothing_matches_nothing(triggers: list[str]) -> None:
    batch = read_texts([*PROMPTS, ""])
    match = LexicalIndex(views_of(triggers)).match(batch.tokens, batch.lengths, SHARE)
    assert (match.entry == -1).all()


def test_the_threshold_grows_with_the_catalogue_within_bounds() -> None:
    assert flag_bits(1, 22) == 20
    assert flag_bits(1_000, 22) == 22
    assert flag_bits(10_000, 22) == 30
    assert flag_bits(10**9, 22) == 38
