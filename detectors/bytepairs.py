"""Byte-pair encoding of batches of texts in one compiled pass (Sennrich et al. 2016).

What tiktoken gives for the same ranks and pattern (tests hold it to that), at half of its cost for a prompt
(`python -m loadtests.bench.triggers`): a general engine of regular expressions is most of what a tokeniser takes,
and two patterns are all that we have. Prompts go through two vocabularies: it decides whether all prompt detectors
together stay under 100 µs a prompt.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

# What a character is. Other: neither letter, mark, number nor white space.
_OTHER, _UPPER, _LOWER, _MARK, _NUMBER, _SPACE = range(6)
_CLASS_OF = {"Lu": _UPPER, "Lt": _UPPER, "Ll": _LOWER, "Lm": _LOWER, "Lo": _LOWER,
             "Mn": _MARK, "Mc": _MARK, "Me": _MARK, "Nd": _NUMBER, "Nl": _NUMBER, "No": _NUMBER}  # fmt: skip
_WHITE = (*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)
_ASSIGNED = (slice(0, 0x40000), slice(0xE0000, 0xE0200))  # beyond: unassigned, or for private use
_DIGITS = 3  # of a number that make a piece
_NONE = np.int32(-1)
_NEVER = np.int32(2**31 - 1)
_PRIME = np.uint64(0x100000001B3)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


@cache
def _classes() -> NDArray[np.uint8]:
    """The class of every code point (0x110000,)."""
    made = np.full(0x110000, _OTHER, np.uint8)
    for plane in _ASSIGNED:  # asking for each of a million would take a third of a second at every start
        made[plane] = [_CLASS_OF.get(unicodedata.category(chr(c)), _OTHER) for c in range(plane.start, plane.stop)]
    made[list(_WHITE)] = _SPACE
    return made


class _Tables(NamedTuple):
    classes: NDArray[np.uint8]  # (0x110000,)
    data: NDArray[np.uint8]  # all tokens' bytes, by rank
    begin: NDArray[np.int64]  # (V + 1,)
    single: NDArray[np.int32]  # (256,): the token of each byte
    whole: NDArray[np.int32]  # tokens by their bytes, open addressing; -1: free
    pairs: NDArray[np.uint64]  # left << 48 | right << 32 | the token that they make + 1, open addressing; 0: free


@nb.njit(inline="always")
def _home(hashed: Any, size: int) -> Any:
    """The first slot of a key in a table of a power of two."""
    return np.int64(((hashed ^ (hashed >> np.uint64(29))) * _SPREAD) >> np.uint64(32)) & (size - 1)


@nb.njit(cache=True)
def _hash(data: Any, begin: int, end: int) -> Any:
    hashed = np.uint64(0xCBF29CE484222325)
    for k in range(begin, end):
        hashed = (hashed ^ np.uint64(data[k])) * _PRIME
    return hashed


@nb.njit(cache=True)
def _lay_tokens(data: Any, begin: Any, table: Any) -> None:
    for token in range(begin.size - 1):
        at = _home(_hash(data, begin[token], begin[token + 1]), table.size)
        while table[at] >= 0:
            at = (at + 1) & (table.size - 1)
        table[at] = token


@nb.njit(cache=True)
def _lay_pairs(entries: Any, table: Any) -> None:
    for entry in entries:
        at = _home(entry >> np.uint64(32), table.size)
        while table[at] != 0:
            at = (at + 1) & (table.size - 1)
        table[at] = entry


@nb.njit(cache=True)
def _rank(left: Any, right: Any, pairs: Any) -> Any:
    """The token that two neighbours make, which is its rank too; `_NEVER` if they make none."""
    key = np.uint64(left) << np.uint64(16) | np.uint64(right)
    at = _home(key, pairs.size)
    while pairs[at] != 0:
        if pairs[at] >> np.uint64(32) == key:
            return np.int32(pairs[at] & np.uint64(0xFFFFFFFF)) - np.int32(1)
        at = (at + 1) & (pairs.size - 1)
    return _NEVER


@nb.njit(cache=True)
def _token(data: Any, size: int, tables: Any) -> Any:
    """The token of a whole piece, or -1."""
    at = _home(_hash(data, 0, size), tables.whole.size)
    while True:
        token = tables.whole[at]
        if token < 0:
            return _NONE
        begin = tables.begin[token]
        if tables.begin[token + 1] - begin == size:
            k = 0
            while k < size and tables.data[begin + k] == data[k]:
                k += 1
            if k == size:
                return token
        at = (at + 1) & (tables.whole.size - 1)


@nb.njit(cache=True)
def _merge(data: Any, size: int, tables: Any, parts: Any, ranks: Any) -> int:
    """Fill `parts` with a piece's tokens; how many. Of all neighbours those of the lowest rank are joined first."""
    for k in range(size):
        parts[k] = tables.single[data[k]]
    for k in range(size - 1):
        ranks[k] = _rank(parts[k], parts[k + 1], tables.pairs)
    while size > 1:
        best = 0
        for k in range(1, size - 1):
            if ranks[k] < ranks[best]:
                best = k
        if ranks[best] == _NEVER:
            break
        parts[best] = ranks[best]
        size -= 1
        for k in range(best + 1, size):
            parts[k] = parts[k + 1]
            ranks[k - 1] = ranks[k]
        if best > 0:
            ranks[best - 1] = _rank(parts[best - 1], parts[best], tables.pairs)
        if best < size - 1:
            ranks[best] = _rank(parts[best], parts[best + 1], tables.pairs)
    return size


@nb.njit(cache=True)
def _run(chars: Any, at: int, end: int, kind: Any, classes: Any) -> Any:
    """Where a run of characters of a class ends."""
    while at < end and classes[chars[at]] == kind:
        at += 1
    return at


@nb.njit(cache=True)
def _cased_end(chars: Any, begin: int, end: int, classes: Any) -> Any:
    """Where a piece ends: one blank at most, then a word part, up to three digits or a run of signs.

    A capital opens a word part, so `camelCase` comes apart; marks belong to letters.
    """
    at = begin
    if classes[chars[at]] == _SPACE:
        at += 1
        if at == end or classes[chars[at]] == _SPACE:
            return at
    kind = classes[chars[at]]
    if kind == _NUMBER:
        return min(_run(chars, at, end, kind, classes), at + _DIGITS)
    if kind == _OTHER:
        return _run(chars, at, end, kind, classes)
    at = _run(chars, at, end, _UPPER, classes)
    while at < end and (classes[chars[at]] == _LOWER or classes[chars[at]] == _MARK):
        at += 1
    return at


@nb.njit(cache=True)
def _folded_end(chars: Any, begin: int, end: int, classes: Any) -> Any:
    """Where a piece ends: a run of letters, up to three digits, or one other sign."""
    at = begin
    kind = classes[chars[at]]
    if kind == _NUMBER:
        return min(_run(chars, at, end, kind, classes), at + _DIGITS)
    while at < end and (classes[chars[at]] == _LOWER or classes[chars[at]] == _UPPER):
        at += 1
    return max(at, begin + 1)


@nb.njit(cache=True)
def _write(chars: Any, begin: int, end: int, data: Any) -> int:
    """Write characters as UTF-8; how many bytes."""
    n = 0
    for k in range(begin, end):
        c = chars[k]
        if c < 0x80:
            data[n] = c
            n += 1
        elif c < 0x800:
            data[n], data[n + 1] = 0xC0 | c >> 6, 0x80 | c & 63
            n += 2
        elif c < 0x10000:
            data[n], data[n + 1], data[n + 2] = 0xE0 | c >> 12, 0x80 | c >> 6 & 63, 0x80 | c & 63
            n += 3
        else:
            data[n], data[n + 1] = 0xF0 | c >> 18, 0x80 | c >> 12 & 63
            data[n + 2], data[n + 3] = 0x80 | c >> 6 & 63, 0x80 | c & 63
            n += 4
    return n


@nb.njit(cache=True, nogil=True)
def _encode(chars: Any, bounds: Any, cased: bool, tables: Any, out: Any, offsets: Any) -> None:
    longest = 4 * np.max(np.diff(bounds)) if bounds.size > 1 else 0
    data, parts, ranks = np.empty(longest, np.uint8), np.empty(longest, np.int32), np.empty(longest, np.int32)
    n = 0
    for i in range(bounds.size - 1):
        at, end = bounds[i], bounds[i + 1]
        while at < end:
            if not cased and tables.classes[chars[at]] == _SPACE:
                at += 1
                continue
            begin = at
            if cased:
                at = _cased_end(chars, begin, end, tables.classes)
            else:
                at = _folded_end(chars, begin, end, tables.classes)
            size = _write(chars, begin, at, data)
            token = _token(data, size, tables)
            if token >= 0:
                out[n] = token
                n += 1
            else:
                size = _merge(data, size, tables, parts, ranks)
                out[n : n + size] = parts[:size]
                n += size
        offsets[i + 1] = n


def _room(n: int) -> int:
    """Slots for `n` keys: a power of two, at most half full."""
    return int(2 ** (2 * n).bit_length())


class BytePairs:
    """An encoder of one vocabulary; holds no state."""

    def __init__(self, tokens: Sequence[bytes], cased: bool) -> None:
        """Take the tokens in order of rank, all 256 single bytes among them, at most 65,536.

        `cased`: pieces are word parts with the blank before them; else runs of letters without white space.
        """
        self.tokens = tokens
        self._cased = cased
        rank = {token: i for i, token in enumerate(tokens)}
        entries = np.array(
            [
                rank[token[:at]] << 48 | rank[token[at:]] << 32 | made + 1
                for token, made in rank.items()
                for at in range(1, len(token))
                if token[:at] in rank and token[at:] in rank
            ],
            np.uint64,
        )
        data = np.frombuffer(b"".join(tokens), np.uint8)
        begin = np.cumsum([0, *map(len, tokens)], dtype=np.int64)
        single = np.array([rank[bytes([byte])] for byte in range(256)], np.int32)
        whole = np.full(_room(len(tokens)), _NONE)
        _lay_tokens(data, begin, whole)
        pairs = np.zeros(_room(len(entries)), np.uint64)
        _lay_pairs(entries, pairs)
        self._tables = _Tables(_classes(), data, begin, single, whole, pairs)

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Tokens of all texts, one after the other, and where each begins (n + 1,)."""
        bounds = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(text) for text in texts], out=bounds[1:])
        # A half of a surrogate pair is no character: it reads as a question mark.
        chars = np.frombuffer("".join(texts).encode("utf-32-le", "replace"), np.uint32)
        out = np.empty(_bytes(chars), np.int32)
        offsets = np.zeros(len(texts) + 1, np.int64)
        _encode(chars, bounds, self._cased, self._tables, out, offsets)
        return out[: offsets[-1]], offsets

    def places(self, text: str) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Tokens of one text, runs of one collapsed, and each one's characters [begin, end). Not where cased."""
        tokens, _ = self.encode([text])
        chars = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)
        kept, begin, end = np.empty_like(tokens), np.empty(len(tokens), np.int64), np.empty(len(tokens), np.int64)
        n = _lay_over(chars, self._tables, tokens, kept, begin, end)
        return kept[:n], begin[:n], end[:n]


@nb.njit(inline="always")
def _width(char: Any) -> Any:
    """Bytes of a character as UTF-8."""
    return 1 + (char >= 0x80) + (char >= 0x800) + (char >= 0x10000)


@nb.njit(cache=True, nogil=True)
def _lay_over(chars: Any, tables: Any, tokens: Any, kept: Any, begin: Any, end: Any) -> int:
    """Lay tokens over the characters that they are of: all but the white space. How many are kept."""
    n, at, left = 0, -1, 0  # `left`: bytes of the character `at` that are not laid over yet
    for token in tokens:
        first = -1
        for _ in range(tables.begin[token + 1] - tables.begin[token]):
            if left == 0:
                at += 1
                while tables.classes[chars[at]] == _SPACE:
                    at += 1
                left = _width(chars[at])
            left -= 1
            first = at if first < 0 else first
        if n == 0 or kept[n - 1] != token:
            kept[n], begin[n] = token, first
            n += 1
        end[n - 1] = at + 1
    return n


@nb.njit(cache=True)
def _bytes(chars: Any) -> Any:
    """How long characters are as UTF-8: no text has more tokens."""
    n = 0
    for c in chars:
        n += _width(c)
    return n
