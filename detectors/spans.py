"""From tokens back to characters: only for what is reported, since it costs as much as reading the prompt."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.folding import fold
from detectors.text import PromptBatch
from detectors.vocabulary import vocabulary


@lru_cache(maxsize=8_192)
def _folded_size(char: str) -> int:
    """Characters that one becomes when it is folded."""
    return len(fold(char))


class Places(NamedTuple):
    """Tokens of a text, runs collapsed, and the characters [begin, end) of each."""

    tokens: NDArray[np.int32]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]


def token_places(text: str) -> Places:
    """The tokens of a text with their places; none where folding did not go by characters."""
    folded = fold(text)
    places = Places(*vocabulary().pairs.places(folded))
    if text.isascii():
        return places
    owners = np.repeat(np.arange(len(text)), [_folded_size(char) for char in text])
    if len(owners) != len(folded):
        return Places(places.tokens[:0], places.begin[:0], places.end[:0])
    return Places(places.tokens, owners[places.begin], owners[places.end - 1] + 1)


def character_span(batch: PromptBatch, i: int, begin: int, end: int) -> tuple[int, int] | None:
    """Characters of the tokens [begin, end) of row `i`: from 0 in the head, or negative, from the tail's end.

    None where the span lies over both ends, or folding does not map back.
    """
    size = int(batch.lengths[i])
    if end > size:
        return None
    wanted = batch.tokens[i, begin:end]
    head = token_places(batch.heads[i])
    if np.array_equal(head.tokens[begin:end], wanted):
        return int(head.begin[begin]), int(head.end[end - 1])
    tail, text = token_places(batch.tails[i]), batch.tails[i]
    first = len(tail.tokens) - (size - begin)
    if first >= 0 and np.array_equal(tail.tokens[first : first + end - begin], wanted):
        return int(tail.begin[first]) - len(text), int(tail.end[first + end - begin - 1]) - len(text)
    return None
