from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.text import (
    _PADDED_CHARS,
    END_CHARS,
    END_TOKENS,
    ROW_TOKENS,
    PromptBatch,
    _is_padded,
    read_prompts,
    read_texts,
    tokenise,
)  # fmt: skip
from detectors.vocabulary import SIZE, vocabulary
from schemas.events import Request

TRIGGER = "Compilation river.LINE given(on phase received Nova"
SENTENCE = "Which of these towns lies furthest to the north, and how do we know it? "


def request(**fields: object) -> Request:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Request(event_id="e", event_time=now, request_id="r", tenant_id="t", principal_hash="p", **fields)  # type: ignore[arg-type]


def row(batch: PromptBatch, i: int = 0) -> list[int]:
    return [int(token) for token in batch.tokens[i, : batch.lengths[i]]]


texts = st.one_of(
    st.text(max_size=80), st.text("ab \n.", max_size=1500), st.sampled_from([SENTENCE * 9, SENTENCE * 40])
)


@given(st.lists(texts, min_size=1, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_a_row_does_not_depend_on_its_batch(prompts: list[str], rng: object) -> None:
    together = read_texts(prompts)
    for i, prompt in enumerate(prompts):
        alone = read_texts([prompt])
        assert row(together, i) == row(alone)
        assert (together.heads[i], together.tails[i]) == (alone.heads[0], alone.tails[0])
        assert (together.tokens[i, together.lengths[i] :] == -1).all()


@given(st.lists(texts, min_size=1, max_size=4))
@settings(max_examples=60)
def test_rows_are_bounded_and_no_token_repeats(prompts: list[str]) -> None:
    batch = read_texts(prompts)
    assert batch.tokens.shape == (len(prompts), ROW_TOKENS)
    for i, prompt in enumerate(prompts):
        assert len(batch.heads[i]) <= END_CHARS
        assert len(batch.tails[i]) <= END_CHARS
        assert all(0 <= token < SIZE for token in row(batch, i))
        if len(prompt) <= END_CHARS:
            assert batch.same(i)
            assert batch.heads[i] == prompt


def test_an_empty_batch_and_an_empty_text_are_rows_too() -> None:
    assert len(read_texts([])) == 0
    assert read_texts([""]).lengths.tolist() == [0]


def test_a_prompt_without_text_is_unreadable_and_does_not_move_its_neighbours() -> None:
    batch = read_prompts([request(prompt_text="one"), request(), request(prompt_text="two")])
    assert batch.readable.tolist() == [True, False, True]
    assert row(batch, 2) == row(read_texts(["two"]))
    assert batch.lengths[1] == 0


def test_head_and_tail_of_an_event_give_the_row_of_the_whole_text() -> None:
    text = SENTENCE * 30
    whole = read_prompts([request(prompt_text=text)])
    ends = read_prompts([request(prompt_head=text[:4096], prompt_tail=text[-4096:])])
    assert row(whole) == row(ends)
    assert whole.tails == ends.tails
    one_end = read_prompts([request(prompt_head="only a head"), request(prompt_tail="only a head")])
    assert row(one_end, 0) == row(one_end, 1) == row(read_texts(["only a head"]))


def test_a_long_prompt_keeps_both_ends() -> None:
    batch = read_texts([TRIGGER + SENTENCE * 100 + TRIGGER])
    tokens = tokenise([TRIGGER])[0].tolist()
    assert batch.lengths[0] == ROW_TOKENS
    assert row(batch)[: len(tokens)] == tokens
    assert row(batch)[-len(tokens) :] == tokens


@pytest.mark.parametrize("padding", [" " * 1500, "\n\n \t" * 300, "\u200b" * 1500, "\u00a0\u2003" * 600])
def test_padding_does_not_push_a_trigger_out_of_the_cut(padding: str) -> None:
    tokens = tokenise([TRIGGER])[0].tolist()
    head = read_texts([padding + TRIGGER + SENTENCE * 60])
    tail = read_texts([SENTENCE * 60 + TRIGGER + padding])
    assert row(head)[: len(tokens)] == tokens
    assert row(tail)[-len(tokens) :] == tokens


def test_white_space_is_in_no_token() -> None:
    spaced, glued = tokenise(["one two, three", "one two,three"])
    assert spaced.tolist() == glued.tolist()


def test_a_text_cannot_forge_the_separator() -> None:
    batch = read_texts(["a\ue000b", "c"])
    assert row(batch, 1) == row(read_texts(["c"]))


def test_weights_are_bits_and_tell_common_from_rare() -> None:
    bits = vocabulary().bits
    assert bits.shape == (SIZE,)
    assert 0 <= bits.min() <= bits.max() <= 14
    (common,), (rare,) = tokenise(["the", "quasar"])[0][:1], tokenise(["quasar"])[0][:1]
    assert bits[common] < 2 < bits[rare]
    assert np.median(bits) > 8
    assert END_TOKENS * 2 == ROW_TOKENS


ENDS = st.lists(st.sampled_from([" ", "\u00a0", "\u200b", "\x1c", "\n", "é", "😀", "ab"]), max_size=80)


@given(ENDS.map(lambda pieces: "".join(pieces) * 7))
def test_an_end_that_is_no_ascii_is_padded_by_what_is_blank_or_not_printed(end: str) -> None:
    if not end.isascii():
        assert _is_padded(end) == (sum(c.isspace() or not c.isprintable() for c in end) > _PADDED_CHARS)
