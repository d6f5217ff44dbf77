"""Lexical matching: which catalogued trigger's tokens does a prompt hold, weighed by their information.

An inverted index by prefix filtering (Chaudhuri, Ganti and Kaushik, ICDE 2006; Bayardo, Ma and Srikant, WWW 2007):
of each trigger only the tokens that are cheapest to look up are posted, until they hold most of its bits; a prompt
that misses those cannot reach the share asked for. What remains is verified: the stretch of the prompt that
holds most of the trigger's bits b, and the longest common subsequence l in it, score S = max(b / total, l / n) x
(b + log2 l!): bits of content, and bits of order.

A row is searched as a circle, so that a trigger split between a prompt's two ends is in one piece too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.text import tokenise
from detectors.triggers.kernel import best_matches
from detectors.vocabulary import FREE_BITS, SIZE, vocabulary

POSTED_SHARE = 0.7  # of a trigger's bits that are in the index
UNIT_TOKENS = (
    64  # longer texts are matched in units of at most this many tokens: a cut may hold only a part of them
)
LEAST_BITS = 20.0  # fewer found bits are not even looked at


def flag_bits(units: int, at_thousand: float) -> float:
    """Least score that flags: every tenfold catalogue makes chance matches likelier by about 8 bits of score."""
    return min(max(at_thousand + 8 * math.log10(max(units, 1) / 1000), at_thousand - 2), at_thousand + 16)


def views_of(texts: Sequence[str]) -> list[list[NDArray[np.int32]]]:
    """The token views of each trigger: as it is, and, where that differs, as it is with its white space removed."""
    plain = tokenise(texts)
    glued = tokenise(["".join(text.split()) for text in texts])
    return [[a] if np.array_equal(a, b) else [a, b] for a, b in zip(plain, glued, strict=True)]


def units_of(tokens: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """Cut a trigger's tokens into units of nearly equal length; no tokens, no units."""
    if not len(tokens):
        return []
    if len(tokens) <= UNIT_TOKENS:
        return [tokens]
    return np.array_split(tokens, -(-len(tokens) // UNIT_TOKENS))


@dataclass(frozen=True, slots=True)
class LexicalMatches:
    """Best match of each row. Where `unit` is -1 nothing was near, and the other columns say nothing."""

    entry: NDArray[np.int32]  # (n,) index of the trigger among those given to the index, or -1
    score: NDArray[np.float32]  # (n,) S, bits; 0 where nothing was near
    share: NDArray[np.float32]  # (n,) part of the unit's bits in the span, 0..1
    begin: NDArray[np.int32]  # (n,) span in the row's tokens; `end` runs over the row's end where the span wraps
    end: NDArray[np.int32]


class LexicalIndex:
    """An immutable index of triggers, each given by its views (`views_of`)."""

    def __init__(self, triggers: Sequence[Sequence[NDArray[np.int32]]]) -> None:
        cut = [
            (entry, unit) for entry, views in enumerate(triggers) for tokens in views for unit in units_of(tokens)
        ]
        self._size = sum(len(units_of(views[0])) for views in triggers)
        self._entries = np.array([entry for entry, _ in cut], np.int32)
        self._bits = bits = vocabulary().bits
        self._sequence_at, self._sequences = _ragged([unit for _, unit in cut])
        # All units at once: a call of NumPy's for each would take most of a large catalogue's time.
        owner = np.repeat(np.arange(len(cut), dtype=np.int64), np.diff(self._sequence_at))
        first = np.sort(np.unique(owner * SIZE + self._sequences, return_index=True)[1])
        first = first[bits[self._sequences[first]] > 0]
        owner, distinct = owner[first], self._sequences[first]
        self._set_at, self._sets = _offsets(owner, len(cut)), distinct
        self.total = np.bincount(owner, bits[distinct], len(cut)).astype(np.float32)
        posted = self._posted(owner, distinct)
        owner, distinct = owner[posted], distinct[posted]
        self._rest = self.total - np.bincount(owner, bits[distinct], len(cut)).astype(np.float32)
        order = np.lexsort((owner, distinct))
        self._posts = _offsets(distinct, SIZE)
        self._posted_units = owner[order].astype(np.int32)

    def __len__(self) -> int:
        """Number of units, each counted in one view: what the flag threshold grows with."""
        return self._size

    def _posted(self, owner: NDArray[np.int64], distinct: NDArray[np.int32]) -> NDArray[np.int64]:
        """Which of the units' distinct tokens to post: of each unit the cheapest, up to their share of its bits."""
        frequency = np.bincount(distinct, minlength=SIZE)
        cost = frequency * np.exp2(-self._bits - FREE_BITS)  # postings read per token of natural text
        cheapest = np.lexsort((cost[distinct], owner))
        bits = self._bits[distinct[cheapest]].astype(np.float64)
        before = np.cumsum(bits) - bits
        before -= before[self._set_at[owner]]  # bits are sixteenths: exact
        return cheapest[before < POSTED_SHARE * self.total[owner]]

    def match(
        self, rows: NDArray[np.int32], sizes: NDArray[np.int32], least_share: float, least_bits: float = LEAST_BITS
    ) -> LexicalMatches:
        """The best match of each token row (n, width) of `sizes` tokens, at a share of `least_share` or more."""
        n = len(rows)
        unit, begin, end = (np.empty(n, np.int32) for _ in range(3))
        score, share = np.empty(n, np.float32), np.empty(n, np.float32)
        best_matches(
            rows, sizes, self._bits,
            self._posts, self._posted_units, self.total, self._rest,
            self._set_at, self._sets, self._sequence_at, self._sequences,
            least_share, least_bits, unit, score, share, begin, end,
        )  # fmt: skip
        entry = np.where(unit >= 0, self._entries[unit], -1).astype(np.int32) if len(self._entries) else unit
        return LexicalMatches(entry, score, share, begin, end)


def _ragged(parts: Sequence[NDArray[np.int32]]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    offsets = np.zeros(len(parts) + 1, np.int64)
    offsets[1:] = np.cumsum([len(part) for part in parts])
    return offsets, np.concatenate([*parts, np.empty(0, np.int32)]).astype(np.int32)


def _offsets(numbers: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Where each of 0..count-1 begins among the numbers in ascending order (count + 1,)."""
    return np.concatenate([[0], np.cumsum(np.bincount(numbers, minlength=count))]).astype(np.int64)
