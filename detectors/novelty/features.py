"""What is measured of a prompt's ends: how well each token follows from its neighbours, and sums of that by window.

A trigger is a stretch at an end whose tokens do not follow from each other, beside a body whose tokens do. So
windows of several sizes from both ends are set against the rest of the same prompt.
"""

import math
from collections.abc import Sequence
from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

from detectors.novelty.ngrams import BEGIN, COUNTS, level
from detectors.novelty.tokens import END_TOKENS, ROW_TOKENS

CHANNELS = 10  # of a token, by the language model
CLASSES = 14  # of a token, by its letters
CLASS_STEP = 1 / 100  # of the classes on disk
_END_SIZES = np.array([6, 10, 16])
_BODY_FROM = 12  # tokens from an end that are not the other side's body
_PER_CHANNEL = 2 * len(_END_SIZES) + 8
FEATURES = CHANNELS * _PER_CHANNEL + CLASSES * 5 + 2


def classes(tokens: Sequence[bytes], log_p: NDArray[np.float32]) -> NDArray[np.uint8]:
    """What each token is made of (V, CLASSES), in steps of `CLASS_STEP`: blank, case, digits, scripts, rarity."""
    from wordfreq import zipf_frequency

    made = np.zeros((len(tokens), CLASSES))
    for i, token in enumerate(tokens):
        text = token.decode("utf-8", "replace")
        body = text.strip()
        n = max(1, len(body))
        made[i] = (
            text[:1] == " ",
            body[:1].isupper(),
            body.isupper() and len(body) > 1,
            sum(c.isdigit() for c in body) / n,
            sum(c.isascii() and c.isalpha() for c in body) / n,
            sum(c.isascii() and not c.isalnum() for c in body) / n,
            sum("\u00c0" <= c <= "\u024f" for c in body) / n,
            sum("\u0400" <= c <= "\u04ff" for c in body) / n,
            sum(c >= "\u2e80" for c in body) / n,
            "\ufffd" in text,
            min(len(token), 16) / 8,
            text[:1] != " " and body[:1].isalpha(),
            zipf_frequency(body.lower(), "en") / 4 if body.isalpha() and body.isascii() else 0,
            min(2.5, max(0, (float(log_p[i]) + 18) / 8)),
        )
    return np.round(made / CLASS_STEP).astype(np.uint8)


@nb.njit(cache=True)
def window(flat: Any, span: Any, now: Any, one: Any, two: Any) -> tuple[int, int]:
    """Take a prompt's window: how many tokens it has, and 1 if more were there.

    Fills `now`, `one` and `two` (ROW_TOKENS,) with its tokens and each one's two predecessors. `flat` holds a
    batch's tokens, `span` (4,) where the prompt's head and its tail begin and end.
    """
    begin, end = span[0], span[1]
    if span[2] == span[3] and end - begin <= ROW_TOKENS:
        for k in range(end - begin):
            now[k] = flat[begin + k]
            one[k] = flat[begin + k - 1] if k > 0 else BEGIN
            two[k] = flat[begin + k - 2] if k > 1 else BEGIN
        return end - begin, 0
    n = min(END_TOKENS, end - begin)
    for k in range(n):
        now[k] = flat[begin + k]
        one[k] = flat[begin + k - 1] if k > 0 else BEGIN
        two[k] = flat[begin + k - 2] if k > 1 else BEGIN
    if span[2] != span[3]:
        begin, end = span[2], span[3]
    m = min(END_TOKENS, end - begin)
    for k in range(m):
        at = end - m + k
        now[n + k] = flat[at]
        one[n + k] = flat[at - 1] if at > begin else BEGIN
        two[n + k] = flat[at - 2] if at - 1 > begin else BEGIN
    return n + m, 1


@nb.njit(cache=True, fastmath=True)
def channels(now: Any, one: Any, two: Any, n: int, grams: Any, out: Any) -> None:
    """Fill `out` (ROW_TOKENS, CHANNELS): surprise alone, after one token and after two; what pulls; what is new."""
    texts = np.float32(1e6)  # how often anything stands after a beginning
    for k in range(n):  # look-ups alone, so that they wait for memory side by side
        t = grams.folded[now[k]]
        a = grams.folded[one[k]] if one[k] < BEGIN else one[k]
        b = grams.folded[two[k]] if two[k] < BEGIN else two[k]
        out[k, 3] = level(grams.skips, b, 0, t)
        out[k, 4] = level(grams.pairs, 0, a, t)
        out[k, 5] = level(grams.triples, b, a, t)
        follows = k > 0 and one[k] == now[k - 1]
        out[k, 6] = out[k - 1, 4] if follows else level(grams.pairs, 0, b, a)
    for k in range(n):
        skip, pair, triple, before = int(out[k, 3]), int(out[k, 4]), int(out[k, 5]), int(out[k, 6])
        t = grams.folded[now[k]]
        after_one = grams.counts[grams.folded[one[k]]] if one[k] < BEGIN else texts
        after_skip = grams.counts[grams.folded[two[k]]] if two[k] < BEGIN else texts
        after_two = max(COUNTS[before], COUNTS[triple])
        alone = grams.log_p[t]
        p1 = math.exp(alone)
        p2 = min(np.float32(0.9), (COUNTS[pair] + 15 * p1) / (after_one + 15))
        p3 = min(np.float32(0.9), (COUNTS[triple] + 6 * p2) / (after_two + 6))
        ps = min(np.float32(0.9), (COUNTS[skip] + 15 * p1) / (after_skip + 15))
        l2 = math.log(p2)
        out[k, 0] = -alone / 8
        out[k, 1] = -l2 / 8
        out[k, 2] = -math.log(p3) / 8
        out[k, 3] = (math.log(ps) - alone) / 4
        out[k, 4] = pair * np.float32(0.25)
        out[k, 5] = triple * np.float32(0.25)
        out[k, 6] = (l2 - alone) / 4
        out[k, 7] = 1 if pair == 0 else 0
        out[k, 8] = 1 if triple == 0 else 0
        out[k, 9] = 1 if l2 < alone else 0


@nb.njit(cache=True, fastmath=True)
def measure(now: Any, n: int, cut: int, seen: Any, made: Any, sums: Any, out: Any) -> None:
    """Fill `out` (FEATURES,) from channels (ROW_TOKENS, CHANNELS) and classes (V, CLASSES); `sums` is scratch."""
    width = CHANNELS + CLASSES
    for k in range(n):
        for c in range(CHANNELS):
            sums[k + 1, c] = sums[k, c] + seen[k, c]
        for c in range(CLASSES):
            sums[k + 1, CHANNELS + c] = sums[k, CHANNELS + c] + made[now[k], c]
    j = 0
    size8 = min(8, n)
    body_from = min(_BODY_FROM, n)
    for c in range(CHANNELS):
        total = sums[n, c] / n
        for q in range(_END_SIZES.size):
            size = min(_END_SIZES[q], n)
            out[j] = sums[size, c] / size
            out[j + 1] = (sums[n, c] - sums[n - size, c]) / size
            j += 2
        after = (sums[n, c] - sums[body_from, c]) / (n - body_from) if n > body_from else total
        before = sums[n - body_from, c] / (n - body_from) if n > body_from else total
        out[j] = sums[body_from, c] / body_from - after
        out[j + 1] = (sums[n, c] - sums[n - body_from, c]) / body_from - before
        out[j + 2] = after
        out[j + 3] = before
        j += 4
        head = tail = most = np.float32(-1e9)
        least = np.float32(1e9)
        for s in range(n - size8 + 1):
            mean = (sums[s + size8, c] - sums[s, c]) / size8
            if s + size8 <= 20:
                head = max(head, mean)
            if s >= n - 20:
                tail = max(tail, mean)
            most = max(most, mean)
            least = min(least, mean)
        out[j] = head
        out[j + 1] = tail
        out[j + 2] = most
        out[j + 3] = least
        j += 4
    size = min(10, n)
    for c in range(CHANNELS, width):
        total = sums[n, c] / n
        first, last = sums[size, c] / size, (sums[n, c] - sums[n - size, c]) / size
        out[j] = first
        out[j + 1] = last
        out[j + 2] = total
        out[j + 3] = first - total
        out[j + 4] = last - total
        j += 5
    out[j] = n
    out[j + 1] = cut
