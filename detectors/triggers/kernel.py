"""The lexical matcher's native part: one pass over a batch of token rows, without the GIL."""

import math

import numpy as np
from numba import float32, int32, int64, njit, void

SPAN_SLACK = 1.4  # a span may hold this many tokens per token of the trigger, and a few more
SPAN_EXTRA = 4


@njit(int64(int32), cache=True, nogil=True, inline="always")
def span_tokens(length: int) -> int:
    """How many tokens of a row are searched for a trigger of `length` tokens."""
    return int(length * SPAN_SLACK) + SPAN_EXTRA


@njit(cache=True, nogil=True)
def _best_span(row, size, span, bits, mark, stamp, inside):  # type: ignore[no-untyped-def]
    """The stretch of `span` tokens of a circular row that holds most bits of the stamped tokens: (bits, first)."""
    best = np.float32(0)
    now = np.float32(0)
    first = 0
    steps = size if span >= size else size + span - 1
    for i in range(steps):
        token = row[i % size]
        if mark[token] == stamp:
            inside[token] += 1
            if inside[token] == 1:
                now += bits[token]
        if i >= span:
            token = row[i - span]
            if mark[token] == stamp:
                inside[token] -= 1
                if inside[token] == 0:
                    now -= bits[token]
        if now > best + 1e-4:
            best = now
            first = max(0, i - span + 1)
    return best, first


@njit(cache=True, nogil=True)
def _common_subsequence(row, size, first, span, sequence, begin, end, lengths):  # type: ignore[no-untyped-def]
    """Length of the longest common subsequence of a trigger and a stretch of a circular row."""
    lengths[: span + 1] = 0
    for i in range(begin, end):
        diagonal = 0
        for j in range(span):
            above = lengths[j + 1]
            if row[(first + j) % size] == sequence[i]:
                lengths[j + 1] = diagonal + 1
            elif lengths[j] > above:
                lengths[j + 1] = lengths[j]
            diagonal = above
    return lengths[span]


@njit(
    void(
        int32[:, ::1], int32[::1], float32[::1],
        int64[::1], int32[::1], float32[::1], float32[::1], int64[::1], int32[::1], int64[::1], int32[::1],
        float32, float32, int32[::1], float32[::1], float32[::1], int32[::1], int32[::1],
    ),
    cache=True, nogil=True,
)  # fmt: skip
def best_matches(  # type: ignore[no-untyped-def]
    rows, sizes, bits,
    posts, posted, total, rest, set_at, sets, sequence_at, sequences,
    least_share, least_bits, out_unit, out_score, out_share, out_begin, out_end,
):  # fmt: skip
    """For each row the unit with the highest score, or -1; see `LexicalIndex` for the arrays."""
    units = total.shape[0]
    found = np.zeros(units, np.float32)  # bits of each unit seen in the row
    touched = np.empty(units, np.int32)
    seen = np.zeros(bits.shape[0], np.int32)  # row in which a token was last seen
    mark = np.zeros(bits.shape[0], np.int32)  # verification in which a token was part of the unit
    inside = np.zeros(bits.shape[0], np.int32)
    width = rows.shape[1]
    log_factorial = np.zeros(width + 1, np.float32)
    for k in range(2, width + 1):
        log_factorial[k] = log_factorial[k - 1] + math.log2(k)
    lengths = np.zeros(width + 1, np.int32)
    stamp = 0
    for r in range(rows.shape[0]):
        out_unit[r] = -1
        out_score[r] = 0
        row = rows[r]
        size = sizes[r]
        n = 0
        for i in range(size):
            token = row[i]
            if seen[token] == r + 1:
                continue
            seen[token] = r + 1
            for k in range(posts[token], posts[token + 1]):
                unit = posted[k]
                if found[unit] == 0:
                    touched[n] = unit
                    n += 1
                found[unit] += bits[token]
        for k in range(n):
            unit = touched[k]
            upper = found[unit] + rest[unit]
            found[unit] = 0
            least = max(least_share * total[unit], least_bits)
            if upper < least:
                continue
            bag = np.float32(0)
            for j in range(set_at[unit], set_at[unit + 1]):
                if seen[sets[j]] == r + 1:
                    bag += bits[sets[j]]
            if bag < least:
                continue
            stamp += 1
            for j in range(set_at[unit], set_at[unit + 1]):
                mark[sets[j]] = stamp
                inside[sets[j]] = 0
            begin, end = sequence_at[unit], sequence_at[unit + 1]
            span = min(span_tokens(end - begin), size)
            held, first = _best_span(row, size, span, bits, mark, stamp, inside)
            share = held / total[unit]
            if share < least_share:
                continue
            common = _common_subsequence(row, size, first, span, sequences, begin, end, lengths)
            score = max(share, np.float32(common) / np.float32(end - begin)) * (held + log_factorial[common])
            if score > out_score[r]:
                left, right = first, first + span
                while mark[row[left % size]] != stamp:
                    left += 1
                while mark[row[(right - 1) % size]] != stamp:
                    right -= 1
                out_unit[r] = unit
                out_score[r] = score
                out_share[r] = share
                out_begin[r] = left
                out_end[r] = right
