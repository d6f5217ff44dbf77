"""A language model of tokens in a few megabytes: which pairs, triples and skip pairs natural text has.

Counts of n-grams live in hashed tables of one byte a slot: five bits that check the key, three that say how
often it was seen, in steps of two to six. A key has two slots; the most frequent keys are laid first, and
what finds no slot is forgotten. A key that was never laid is taken for one in about 2/32 of look-ups.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

BEGIN = 65_535  # stands before a text
COUNTS = np.array([0.0, 1.0, 2.0, 4.0, 9.0, 27.0, 120.0, 1000.0], np.float32)  # that a level stands for
_LEVEL_FROM = np.array([1, 2, 3, 6, 15, 50, 300])  # the least count of levels 1..7

_M1, _M2, _M3 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)


@nb.njit(inline="always")
def _mix(a: Any, b: Any, c: Any) -> Any:
    h = (np.uint64(a) * _M1) ^ (np.uint64(b) * _M2 + np.uint64(c) * _M3)
    h ^= h >> np.uint64(31)
    h *= _M1
    return h ^ (h >> np.uint64(29))


@nb.njit(inline="always")
def _slot(h: Any, size: Any) -> Any:
    return ((h >> np.uint64(32)) * np.uint64(size)) >> np.uint64(32)


@nb.njit(inline="always")
def level(table: Any, a: Any, b: Any, c: Any) -> Any:
    """How often the key (a, b, c) was seen, 0..7: an index of `COUNTS`."""
    h = _mix(a, b, c)
    check = np.uint8(h & np.uint64(31))
    found = table[_slot(h, table.size)]
    if (found >> 3) == check and (found & 7) != 0:
        return found & 7
    found = table[_slot(h * _M2, table.size)]
    if (found >> 3) == check:
        return found & 7
    return np.uint8(0)


@nb.njit(cache=True)
def _lay(table: Any, keys: Any, levels: Any) -> int:
    """Lay keys (n, 3) in order; the number that found no slot."""
    lost = 0
    for i in range(keys.shape[0]):
        h = _mix(keys[i, 0], keys[i, 1], keys[i, 2])
        byte = np.uint8(np.uint8(h & np.uint64(31)) << 3) | np.uint8(levels[i])
        first, second = _slot(h, table.size), _slot(h * _M2, table.size)
        if table[first] == 0:
            table[first] = byte
        elif table[second] == 0:
            table[second] = byte
        else:
            lost += 1
    return lost


class Ngrams(NamedTuple):
    """The model. Tables are uint8; keys are (token before last, last token, token), or zeros where shorter."""

    folded: NDArray[np.int32]  # (V,): the token without case, where it is one token: what n-grams are made of
    log_p: NDArray[np.float32]  # (V,): natural logarithm of a folded token's share of natural text
    counts: NDArray[np.float32]  # (V,): how often it was seen
    pairs: NDArray[np.uint8]
    triples: NDArray[np.uint8]
    skips: NDArray[np.uint8]


def fold_case(tokens: Sequence[bytes]) -> NDArray[np.int32]:
    """For each token its lower-case twin, or itself where the vocabulary has none."""
    rank = {token: i for i, token in enumerate(tokens)}
    folded = np.arange(len(tokens), dtype=np.int32)
    for i, token in enumerate(tokens):
        lower = token.decode("utf-8", "surrogateescape").lower().encode("utf-8", "surrogateescape")
        folded[i] = rank.get(lower, i)
    return folded


def _seen(keys: NDArray[np.uint64], least: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Distinct keys seen `least` times or more, most frequent first."""
    keys = np.sort(keys)
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    counts = np.diff(np.append(starts, len(keys)))
    often = counts >= least
    unique, counts = keys[starts[often]], counts[often]
    order = np.argsort(-counts, kind="stable")
    return unique[order], counts[order]


def _table(keys: NDArray[np.uint64], size: int, least: int) -> NDArray[np.uint8]:
    unique, counts = _seen(keys, least)
    unique, counts = unique[: int(size * 0.9)], counts[: int(size * 0.9)]  # fuller only raises false finds
    parts = np.stack([unique >> np.uint64(32), (unique >> np.uint64(16)) & np.uint64(0xFFFF),
                      unique & np.uint64(0xFFFF)], axis=1)  # fmt: skip
    table = np.zeros(size, np.uint8)
    _lay(table, parts, np.searchsorted(_LEVEL_FROM, counts, side="right").astype(np.uint8))
    return table


def count(
    flat: NDArray[np.int32], offsets: NDArray[np.int64], tokens: Sequence[bytes], sizes: tuple[int, int, int]
) -> Ngrams:
    """Count texts given as one row of tokens and where each begins; sizes of the three tables in bytes."""
    folded = fold_case(tokens)
    last = np.full(len(flat) + len(offsets) + 1, BEGIN, np.uint64)  # two beginnings before the first text
    last[2 + np.arange(len(flat)) + np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))] = folded[flat]
    now = last[2:]
    whole = now != BEGIN
    before, one = last[:-2], last[1:-1]
    before = np.where(one == BEGIN, np.uint64(BEGIN), before)  # nothing of the text before
    seen = np.bincount(folded[flat], minlength=len(tokens)).astype(np.float64)
    pairs = (one << np.uint64(16) | now)[whole]
    triples = (before << np.uint64(32) | one << np.uint64(16) | now)[whole]
    skips = (before << np.uint64(32) | now)[whole]
    return Ngrams(
        folded,
        np.log((seen + 0.3) / (seen.sum() + 0.3 * len(tokens))).astype(np.float32),
        seen.astype(np.float32),
        _table(pairs, sizes[0], 1),
        _table(triples, sizes[1], 2),
        _table(skips, sizes[2], 2),
    )
