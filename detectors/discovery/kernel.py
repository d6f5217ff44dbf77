"""The native part of `discovery`: one prompt's shingles against what is remembered, and what came of it.

`look` changes nothing: it works out everything of this use into scratch rows. `take` writes those rows into the
memory. Numbers that are kept are integers, so that a state is equal on every machine; evidence is in 1/64 of a
standard deviation.
"""

import math

import numpy as np
from numba import njit

SHINGLE = 3  # tokens
END = 32  # shingles of each end that are all looked at; of those inside, every second, chosen by hash
LONG_RUN = 32  # shingles seen before in a row: a prompt's body again; every eighth of them is remembered
REACH = 24  # shingles to each side that may belong to the same window
MOST_TOKENS = 256  # of a prompt
WAYS = 4
BODIES = 8  # signatures remembered of a window
UNIT = 64  # evidence of one standard deviation
MOST_EVIDENCE = 60 * UNIT
CLIP = 3.5  # standard deviations that one use can tell at most
LEAST_REST = 6  # tokens outside of a window, to predict from and to tell bodies apart
FORGET_MINUTES = 1_440
ESTABLISHED = 4  # bodies, from which on a window's place is protected
MOST_SENT = 16  # candidates of a window before it must show twice the evidence
MOST_ARMS = 5
MOST_TRIES = 4  # windows of one prompt that are grown
GAP = 5  # shingles in a row that a window may hold and that do not come back
USUAL_SHARE = 1 / 3  # of a window's shingles that are usual, beyond which it is
TOGETHER = 0.2  # share of the bodies of two shingles of one window: a mutated one is never whole
WINDOW_TOKENS = 48

# Columns of a remembered window (uint32 each), beside its key.
FAMILY, USE, EVIDENCE, SENT, BIRTH, RING = 0, 1, 2, 3, 4, 5
COLUMNS = RING + BODIES
# Rows of the scratch integers, one column a shingle.
KEY_LOW, KEY_HIGH, SLOT, SIGNATURE, COUNT, UP, DOWN, FRESH, TOLD, RATIO, USUAL, PART = range(12)
SCRATCH = 12
# Of `out`.
FOUND, BEGIN, END_TOKEN, SIGN, BODIES_SEEN, FAMILY_OF, IS_USUAL, EVIDENCE_OF, BEST, ANY_NEW, RESIDUAL, PARTS = (
    range(12)
)
OUT = 12

NEW, ONCE, LEFT_OUT = -1, -2, -3  # slots of shingles that are not remembered

_C1 = np.uint64(0x9E3779B97F4A7C15)
_C2 = np.uint64(0xD6E8FEB86659FD93)
_C3 = np.uint64(0xFF51AFD7ED558CCD)
_S32 = np.uint64(32)
_S29 = np.uint64(29)
_LOW = np.uint64(0xFFFFFFFF)
_MOST = np.uint64(0xFFFFFFFFFFFFFFFF)


@njit(cache=True, nogil=True, inline="always")
def _mix(x):  # type: ignore[no-untyped-def]
    """The finaliser of SplitMix64 with other constants (Steele, Lea and Flood, OOPSLA 2014)."""
    x ^= x >> _S32
    x *= _C2
    x ^= x >> _S29
    x *= _C3
    x ^= x >> _S32
    return x


@njit(cache=True, nogil=True, inline="always")
def _seen_once(fingerprint, sightings, index):  # type: ignore[no-untyped-def]
    """Whether a fingerprint is among the last ones seen for the first time."""
    at = index[(np.uint64(fingerprint) * _C1 >> _S32) & np.uint64(len(index) - 1)]
    return at > 0 and sightings[at - 1] == fingerprint


@njit(cache=True, nogil=True)
def remember(fingerprint, at, sightings, index):  # type: ignore[no-untyped-def]
    """Put a fingerprint at a place of the ring of first sightings, and into its index."""
    sightings[at] = fingerprint
    index[(np.uint64(fingerprint) * _C1 >> _S32) & np.uint64(len(index) - 1)] = at + 1


@njit(cache=True, nogil=True)
def rebuild(sightings, added, index):  # type: ignore[no-untyped-def]
    """The index of a ring into which `added` fingerprints have gone."""
    size = len(sightings)
    index[:] = 0
    for n in range(max(0, added - size), added):
        at = n % size
        remember(sightings[at], at, sightings, index)


@njit(cache=True, nogil=True, inline="always")
def _age(use, minute):  # type: ignore[no-untyped-def]
    return (minute - (use & 0xFFFF)) & 0xFFFF


@njit(cache=True, nogil=True, inline="always")
def _find(low, high, keys, rows, minute):  # type: ignore[no-untyped-def]
    first = np.int64(high & np.uint64(len(keys) // WAYS - 1)) * WAYS
    for way in range(WAYS):
        if keys[first + way] == low and _age(np.int64(rows[first + way, USE]), minute) <= FORGET_MINUTES:
            return first + way
    return -1


@njit(cache=True, nogil=True, inline="always")
def _size(n):  # type: ignore[no-untyped-def]
    """A text's length as a feature."""
    return (math.log(n) - 4.0) / 2.0


@njit(cache=True, nogil=True, inline="always")
def _expected(total, n, weights):  # type: ignore[no-untyped-def]
    """The normal deviate of the score that `n` tokens get whose weights add up to `total`."""
    last = len(weights) - 1
    return weights[last - 1] + weights[last] * _size(n) + total / math.sqrt(n)


@njit(cache=True, nogil=True, inline="always")
def _is_usual(birth, count, baseline, newness, requests):  # type: ignore[no-untyped-def]
    return birth < baseline or count * birth < newness * (requests - birth)


@njit(cache=True, nogil=True)
def look(  # type: ignore[no-untyped-def]
    tokens, z, weights, spread, bits, slack, bar, bodies, least_bits, baseline, newness, minute, requests,
    keys, rows, sightings, index, scratch, out,
):  # fmt: skip
    """What this use would do. `z`: the score's normal deviate, NaN while it means nothing.

    A window is usual that came back within the first `baseline` requests, or that would have been used fewer than
    `newness` times in the time before, had it been used then as it is now. `scratch` int64[SCRATCH, MOST_TOKENS],
    `out` int64[OUT]; `slack` and `bar` in standard deviations.
    """
    n = len(tokens)
    m = n - SHINGLE + 1
    out[FOUND] = 0
    out[BEST] = -1
    out[EVIDENCE_OF] = 0
    out[ANY_NEW] = 0
    if m < 1:
        return
    # Which shingles are remembered, have been seen once, or are new.
    anything = False
    for j in range(m):
        x = _mix(
            (np.uint64(tokens[j]) + np.uint64(1)) * _C1
            + (np.uint64(tokens[j + 1]) + np.uint64(1)) * _C2
            + (np.uint64(tokens[j + 2]) + np.uint64(1)) * _C3
        )
        key = x & _LOW
        if key == np.uint64(0):
            key = np.uint64(1)
        scratch[KEY_LOW, j] = np.int64(key)
        scratch[KEY_HIGH, j] = np.int64(x >> _S32)
        scratch[FRESH, j] = 0
        scratch[TOLD, j] = scratch[PART, j] = 0
        if END <= j < m - END and (x >> np.uint64(60)) & np.uint64(1):
            scratch[SLOT, j] = LEFT_OUT
            continue
        slot = _find(key, x >> _S32, keys, rows, minute)
        if slot < 0:
            slot = ONCE if _seen_once(np.uint32(key), sightings, index) else NEW
        if slot == NEW:
            out[ANY_NEW] += 1
        else:
            anything = True
        scratch[SLOT, j] = slot
    if not anything or out[ANY_NEW] == 0:  # nothing that comes back, or the whole prompt again
        return
    # Sums of what the tokens predict, and least hashes before and after each shingle.
    sums = np.zeros(n + 1)
    for i in range(n):
        sums[i + 1] = sums[i] + weights[tokens[i]]
    low, high = np.empty((3, m), np.uint64), np.empty((3, m), np.uint64)
    for q in range(3):
        least = _MOST
        salt = _C1 * np.uint64(2 * q + 3)
        for j in range(m):
            low[q, j] = least
            y = _mix((np.uint64(scratch[KEY_LOW, j]) | np.uint64(scratch[KEY_HIGH, j]) << _S32) ^ salt)
            high[q, j] = y
            least = min(least, y)
        least = _MOST
        for j in range(m - 1, -1, -1):
            y = high[q, j]
            high[q, j] = least
            least = min(least, y)
    first = last = -1
    tries = 0
    for j in range(m):
        slot = scratch[SLOT, j]
        if slot == NEW:
            continue
        if j > last:  # a run of shingles seen before begins
            first = last = j
            while last + 1 < m and scratch[SLOT, last + 1] != NEW:
                last += 1
        if slot == LEFT_OUT:
            continue
        if slot == ONCE and last - first >= LONG_RUN and scratch[KEY_HIGH, j] >> 25 & 7:
            scratch[SLOT, j] = LEFT_OUT
            continue
        count = up = down = arm = sent = np.int64(0)
        birth = np.int64(requests)
        if slot >= 0:
            use = np.int64(rows[slot, USE])
            count, arm = use >> 16 & 0xFF, use >> 24 & 7
            birth = np.int64(rows[slot, BIRTH])
            up, down = np.int64(rows[slot, EVIDENCE]) & 0xFFFF, np.int64(rows[slot, EVIDENCE]) >> 16
            sent = np.int64(rows[slot, SENT])
        left, right = max(first, j - REACH), min(last, j + REACH)
        rest = n - (right + SHINGLE - left)
        signature = np.int64(0)
        fresh = rest >= LEAST_REST
        if fresh:
            before, after = max(0, left - SHINGLE + 1), min(m - 1, right + SHINGLE - 1)
            for q in range(3):
                y = min(low[q, before], high[q, after])
                if y == _MOST:
                    fresh = False
                signature |= np.int64(_mix(y) >> np.uint64(54)) << (10 * q)
            signature |= np.int64(1) << 30
        if fresh and slot >= 0:
            for k in range(BODIES):
                other = np.int64(rows[slot, RING + k])
                if other:
                    differs = other ^ signature
                    if differs & 0x3FF == 0 or differs & 0xFFC00 == 0 or differs & 0x3FF00000 == 0:
                        fresh = False
                        break
        if fresh:
            count = count + 1 if count < 248 else 241 + (count - 240) % 8
            if z == z:
                total = sums[n] - sums[right + SHINGLE] + sums[left]
                told = (z - _expected(total, rest, weights)) / spread
                step = np.int64(round(min(CLIP, max(-CLIP, told)) * UNIT))
                scratch[TOLD, j] = step
                easy = np.int64(slack * UNIT)
                up = min(np.int64(MOST_EVIDENCE), max(np.int64(0), up + step - easy))
                down = min(np.int64(MOST_EVIDENCE), max(np.int64(0), down - step - easy))
        scratch[FRESH, j] = 1 if fresh else 0
        scratch[SIGNATURE, j], scratch[COUNT, j] = signature, count
        scratch[UP, j], scratch[DOWN, j] = up, down
        evidence = max(up, down)
        if fresh and evidence > out[EVIDENCE_OF] and count >= bodies:
            out[EVIDENCE_OF] = evidence
        scratch[RATIO, j] = 0
        if fresh and count >= bodies:
            if sent >= MOST_SENT:
                arm += 1
            usual = _is_usual(birth, count, baseline, newness, requests)
            needed = bar * UNIT * 2.0 ** (arm + usual)
            if evidence >= needed and arm < MOST_ARMS:
                scratch[RATIO, j] = np.int64(1024 * evidence / needed)
                scratch[USUAL, j] = usual
                tries = MOST_TRIES
    while tries > 0 and not out[FOUND]:
        tries -= 1
        best = -1
        for j in range(m):
            looked_at = scratch[SLOT, j] != NEW and scratch[SLOT, j] != LEFT_OUT and scratch[RATIO, j] > 0
            if looked_at and (best < 0 or scratch[RATIO, j] > scratch[RATIO, best]):
                best = j
        if best < 0:
            return
        out[BEST] = best
        out[SIGN] = 1 if scratch[UP, best] >= scratch[DOWN, best] else -1
        _extend(tokens, scratch, rows, bits, least_bits, baseline, newness, requests, out)
        if not out[FOUND]:  # too common to be a trigger: another one may stand beside it
            for j in range(out[BEGIN], out[END_TOKEN] - SHINGLE + 1):
                scratch[RATIO, j] = scratch[PART, j] = 0


@njit(cache=True, nogil=True)
def _came_together(one, other, rows):  # type: ignore[no-untyped-def]
    """Whether two remembered shingles stood in the same bodies: in `TOGETHER` of the last ones of the rarer."""
    shared, ones, others = 0, 0, 0
    for i in range(BODIES):
        mine = np.int64(rows[one, RING + i])
        ones += mine != 0
        others += rows[other, RING + i] != 0
        for k in range(BODIES):
            differs = mine ^ np.int64(rows[other, RING + k])
            equal = (differs & 0x3FF == 0) + (differs & 0xFFC00 == 0) + (differs & 0x3FF00000 == 0)
            if mine and equal >= 2:
                shared += 1
                break
    return shared >= max(1.0, TOGETHER * min(ones, others))


@njit(cache=True, nogil=True)
def _extend(tokens, scratch, rows, bits, least_bits, baseline, newness, requests, out):  # type: ignore[no-untyped-def]
    """Grow the best shingle to the window that comes back with it, and name that.

    A replaced word in it costs as many shingles as a shingle has tokens, so gaps are crossed. `out` tells where it
    is, `scratch[PART]` which shingles are of it. It is usual by the share of them that is: one long ordinary
    word is a shingle, and an old one, so the oldest would be an attacker's to choose; but the choices after a
    question share their letters.
    """
    m = len(tokens) - SHINGLE + 1
    best = out[BEST]
    row = UP if out[SIGN] > 0 else DOWN
    left = right = best
    family, strongest, least = np.int64(0), np.int64(-1), scratch[KEY_LOW, best]
    scratch[PART, best] = 1
    out[PARTS] = 1
    used = count = scratch[COUNT, best]
    usual = np.int64(scratch[USUAL, best])
    for direction in (-1, 1):
        at, gap = best + direction, 0
        while 0 <= at < m and abs(at - best) < WINDOW_TOKENS and gap <= GAP:
            slot = scratch[SLOT, at]
            if slot >= 0 and _came_together(scratch[SLOT, best], slot, rows):
                gap = 0
                scratch[PART, at] = 1
                out[PARTS] += 1
                count = max(count, scratch[COUNT, at])
                uses = max(used, scratch[COUNT, at])  # of a mutated window each shingle is in some
                usual += _is_usual(np.int64(rows[slot, BIRTH]), uses, baseline, newness, requests)
                least = min(least, scratch[KEY_LOW, at])
                if rows[slot, FAMILY] and scratch[row, at] > strongest:
                    strongest, family = scratch[row, at], np.int64(rows[slot, FAMILY])
                left, right = min(left, at), max(right, at)
            else:
                gap += 1
            at += direction
    own = np.int64(rows[scratch[SLOT, best], FAMILY])
    family = own if own else family
    out[BEGIN], out[END_TOKEN] = left, right + SHINGLE
    out[FAMILY_OF] = family if family else least
    out[BODIES_SEEN], out[IS_USUAL] = count, usual > USUAL_SHARE * out[PARTS]
    out[RESIDUAL], out[EVIDENCE_OF] = scratch[TOLD, best], scratch[row, best]
    out[FOUND] = _information(tokens[left : right + SHINGLE], bits) >= least_bits


@njit(cache=True, nogil=True)
def _information(tokens, bits):  # type: ignore[no-untyped-def]
    """Bits of the distinct tokens."""
    total = 0.0
    for i in range(len(tokens)):
        again = False
        for k in range(i):
            again |= tokens[k] == tokens[i]
        if not again:
            total += bits[tokens[i]]
    return total


@njit(cache=True, nogil=True)
def rarest_outside(tokens, scratch, bits, out, rarest):  # type: ignore[no-untyped-def]
    """Fill `rarest` with the rarest tokens outside of the found window, the rarest first; how many.

    What came back beside it is left out too: of a mutated text one part is the window, and the others no context.
    """
    is_outside = np.ones(len(tokens), np.bool_)
    is_outside[out[BEGIN] : out[END_TOKEN]] = False
    for j in range(max(0, out[BEGIN] - REACH), min(len(tokens) - SHINGLE + 1, out[END_TOKEN] + REACH)):
        if scratch[SLOT, j] != NEW:
            is_outside[j : j + SHINGLE] = False
    n = 0
    for i in range(len(tokens)):
        token, at = tokens[i], n
        if not is_outside[i]:
            continue
        while at > 0 and (
            bits[token] > bits[rarest[at - 1]] or (bits[token] == bits[rarest[at - 1]] and token < rarest[at - 1])
        ):
            at -= 1
        if at == len(rarest) or (at > 0 and rarest[at - 1] == token):
            continue
        n = min(n + 1, len(rarest))
        rarest[at + 1 : n] = rarest[at : n - 1].copy()
        rarest[at] = token
    return n


@njit(cache=True, nogil=True)
def take(  # type: ignore[no-untyped-def]
    n, minute, requests, keys, rows, dirty, sightings, index, added, scratch, out, lost,
):  # fmt: skip
    """Write what `look` found; returns the number of first sightings so far. `lost`: evicted, refused."""
    m = n - SHINGLE + 1
    if m < 1 or out[ANY_NEW] == 0:
        return added
    size = len(sightings)
    for j in range(m):
        slot = scratch[SLOT, j]
        if slot == LEFT_OUT:
            continue
        key = np.uint32(scratch[KEY_LOW, j])
        if slot == NEW:
            # A shingle may stand twice in one prompt.
            if not _seen_once(key, sightings, index):
                remember(key, added % size, sightings, index)
                added += 1
            continue
        if slot == ONCE:
            slot = _find(np.uint64(key), np.uint64(scratch[KEY_HIGH, j]), keys, rows, minute)
            if slot >= 0:
                continue
            slot = _place(key, np.uint64(scratch[KEY_HIGH, j]), minute, requests, keys, rows, lost)
            if slot < 0:
                continue
            dirty[slot // WAYS] = 1
        use = np.int64(rows[slot, USE])
        count = use >> 16 & 0xFF
        dirty[slot // WAYS] |= (use & 0xFFFF) != minute
        if scratch[FRESH, j]:
            count = scratch[COUNT, j]
            rows[slot, RING + count % BODIES] = scratch[SIGNATURE, j]
            rows[slot, EVIDENCE] = np.uint32(scratch[UP, j] | scratch[DOWN, j] << 16)
            dirty[slot // WAYS] = 1
        rows[slot, USE] = np.uint32((use & 0x07000000) | minute | count << 16)
        scratch[SLOT, j] = slot
    if out[FOUND]:
        for j in range(out[BEGIN], out[END_TOKEN] - SHINGLE + 1):
            slot = scratch[SLOT, j]
            if slot < 0 or not scratch[PART, j]:
                continue
            if rows[slot, FAMILY] == 0:
                rows[slot, FAMILY] = out[FAMILY_OF]
            if rows[slot, FAMILY] == out[FAMILY_OF]:
                rows[slot, SENT] += 1
                if rows[slot, SENT] > MOST_SENT:
                    rows[slot, SENT] = 1
                    rows[slot, USE] += np.uint32(1 << 24)
            dirty[slot // WAYS] = 1
    return added


@njit(cache=True, nogil=True)
def _place(key, high, minute, requests, keys, rows, lost):  # type: ignore[no-untyped-def]
    """A place for a new window: empty or expired, else of the least used that is not established; -1: none."""
    first = np.int64(high & np.uint64(len(keys) // WAYS - 1)) * WAYS
    best = place = np.int64(-1)
    for way in range(WAYS):
        slot = first + way
        use = np.int64(rows[slot, USE])
        age, count = _age(use, minute), use >> 16 & 0xFF
        if keys[slot] == 0 or age > FORGET_MINUTES:
            place = slot
            break
        if count < ESTABLISHED and rows[slot, FAMILY] == 0:
            worth = age * 8 + ESTABLISHED - count
            if worth > best:
                best, place = worth, slot
    if place < 0:
        lost[1] += 1
        return -1
    if keys[place]:
        lost[0] += 1
    keys[place] = key
    rows[place, :] = 0
    rows[place, USE] = minute
    rows[place, BIRTH] = min(requests, 0xFFFFFFFF)
    return place


@njit(cache=True, nogil=True)
def teach(tokens, z, rate, weights, squares):  # type: ignore[no-untyped-def]
    """One step of AdaGrad (Duchi, Hazan and Singer, JMLR 2011) on the squared error; returns the error before."""
    n = len(tokens)
    total = 0.0
    for token in tokens:
        total += weights[token]
    error = z - _expected(total, n, weights)
    x = 1.0 / math.sqrt(n)
    for token in tokens:
        _step(token, error * x, rate, weights, squares)
    last = len(weights) - 1
    _step(last - 1, error, rate, weights, squares)
    _step(last, error * _size(n), rate, weights, squares)
    return error


@njit(cache=True, nogil=True, inline="always")
def _step(i, gradient, rate, weights, squares):  # type: ignore[no-untyped-def]
    squares[i] += np.float32(gradient * gradient)
    weights[i] += np.float32(rate * gradient / math.sqrt(squares[i] + 1e-3))
