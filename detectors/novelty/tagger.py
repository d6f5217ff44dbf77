"""A small convolutional tagger: for each token, the log odds that it belongs to a trigger.

Trained to say which tokens were put in, as ELECTRA's discriminator is (Clark et al. 2020). Its first layer's part
that depends on tokens alone is a table, made once when the model is loaded.
"""

from typing import Any, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from detectors.novelty.features import CHANNELS, CLASS_STEP
from detectors.novelty.tokens import ROW_TOKENS

EMBEDDING = 24  # of a token, learned
WIDTH = 32
TAPS = 5  # of a later layer
DILATIONS = (1, 2)
_MARGIN = (TAPS // 2) * max(DILATIONS)
_POOLS = np.array([5, 7, 9, 11, 14, 18, 24])
_SCALE = np.arange(max(_POOLS) + 1, dtype=np.float32) ** np.float32(0.7)  # of a sum over so many tokens
_CLIP = np.float32(8.0)
_ENDS = 28  # tokens from an end in which a trigger begins or ends
POOLED = 2 * len(_POOLS) + 8


class Weights(NamedTuple):
    """What training finds; layers' shapes name taps, then inputs, then outputs. All float32 but the embedding."""

    embedding: NDArray[np.int8]  # (V, EMBEDDING)
    embedding_step: NDArray[np.float32]  # (EMBEDDING,)
    token: NDArray[np.float32]  # (3, EMBEDDING + CLASSES, WIDTH)
    channel: NDArray[np.float32]  # (3, CHANNELS, WIDTH)
    bias: NDArray[np.float32]  # (WIDTH,)
    later: NDArray[np.float32]  # (len(DILATIONS), TAPS, WIDTH, WIDTH)
    later_bias: NDArray[np.float32]  # (len(DILATIONS), WIDTH)
    out: NDArray[np.float32]  # (WIDTH,)
    out_bias: NDArray[np.float32]  # (1,)


class Tagger(NamedTuple):
    """Weights made ready for rows of ROW_TOKENS tokens, flat where a layer is one pass over all of them."""

    table: NDArray[np.float32]  # (V, 3, WIDTH): what a token gives to its left neighbour, itself and its right one
    channel: NDArray[np.float32]  # (3, CHANNELS, WIDTH)
    later: NDArray[np.float32]  # (len(DILATIONS), TAPS, WIDTH, WIDTH)
    later_bias: NDArray[np.float32]  # (len(DILATIONS), ROW_TOKENS * WIDTH)
    out: NDArray[np.float32]  # (WIDTH, 1)
    out_bias: NDArray[np.float32]  # (1,)


class Room(NamedTuple):
    """Scratch of `tag`, made once a batch. Margins of zeros stand for what is beyond the text."""

    seen: NDArray[np.float32]  # (ROW_TOKENS + 2, CHANNELS)
    hidden: NDArray[np.float32]  # (ROW_TOKENS + 2 * _MARGIN, WIDTH)
    by_tap: NDArray[np.float32]  # (TAPS, ROW_TOKENS, WIDTH)
    odds: NDArray[np.float32]  # (ROW_TOKENS, 1)


def prepare(weights: Weights, made: NDArray[np.uint8]) -> Tagger:
    """Multiply out what depends on tokens alone; `made` are the tokens' classes."""
    inputs = np.concatenate(
        [weights.embedding * weights.embedding_step, made * np.float32(CLASS_STEP)], axis=1, dtype=np.float32
    )
    table = np.ascontiguousarray(np.einsum("vi,tio->vto", inputs, weights.token, optimize=True), np.float32)
    table[:, 1] += weights.bias
    return Tagger(
        table,
        weights.channel,
        weights.later,
        np.tile(weights.later_bias, ROW_TOKENS),
        weights.out[:, None],
        weights.out_bias,
    )


def make_room() -> Room:
    """Scratch for `tag`."""
    return Room(
        np.zeros((ROW_TOKENS + 2, CHANNELS), np.float32),
        np.zeros((ROW_TOKENS + 2 * _MARGIN, WIDTH), np.float32),
        np.zeros((TAPS, ROW_TOKENS, WIDTH), np.float32),
        np.zeros((ROW_TOKENS, 1), np.float32),
    )


@nb.njit(cache=True, fastmath=True)
def tag(now: Any, n: int, seen: Any, tagger: Any, room: Any) -> None:
    """Fill `room.odds` with log odds for the first `n` tokens.

    Every product has the same shape for every prompt, so that no answer depends on a prompt's neighbours.
    """
    by_tap = room.by_tap
    hidden, flat, taps = room.hidden, room.hidden.reshape(-1), by_tap.reshape(TAPS, -1)
    first = _MARGIN * WIDTH
    room.seen[1 : n + 1] = seen[:n]
    room.seen[n + 1 :] = 0
    for tap in range(3):
        np.dot(room.seen[tap : tap + ROW_TOKENS], tagger.channel[tap], by_tap[tap])
    for k in range(n):
        own = tagger.table[now[k], 1]
        left = tagger.table[now[max(k - 1, 0)], 2]
        right = tagger.table[now[min(k + 1, n - 1)], 0]
        has_left, has_right = np.float32(k > 0), np.float32(k < n - 1)
        at = k * WIDTH
        for o in range(WIDTH):
            x = (
                own[o]
                + has_left * left[o]
                + has_right * right[o]
                + taps[0, at + o]
                + taps[1, at + o]
                + taps[2, at + o]
            )
            flat[first + at + o] = max(x, np.float32(0))
    hidden[_MARGIN + n :] = 0
    for layer in range(len(DILATIONS)):
        step = 1 << layer
        for tap in range(TAPS):
            at = _MARGIN + (tap - TAPS // 2) * step
            np.dot(hidden[at : at + ROW_TOKENS], tagger.later[layer, tap], by_tap[tap])
        bias = tagger.later_bias[layer]
        for j in range(n * WIDTH):
            x = taps[0, j] + taps[1, j] + taps[2, j] + taps[3, j] + taps[4, j] + bias[j]
            flat[first + j] += max(x, np.float32(0))
    np.dot(hidden[_MARGIN : _MARGIN + ROW_TOKENS], tagger.out, room.odds)
    for k in range(n):
        room.odds[k, 0] += tagger.out_bias[0]


@nb.njit(cache=True)
def pool(odds: Any, n: int, sums: Any, out: Any) -> None:
    """Fill `out` (POOLED,) from log odds (ROW_TOKENS, 1): how much of a trigger is at an end, or anywhere."""
    sums[0] = 0
    for k in range(n):
        sums[k + 1] = sums[k] + min(_CLIP, max(-_CLIP, odds[k, 0]))
    j = 0
    for size in _POOLS:
        size = min(size, n)
        scale = _SCALE[size]
        out[j] = sums[size] / scale
        out[j + 1] = (sums[n] - sums[n - size]) / scale
        j += 2
    head = tail = most = run = np.float32(0)
    for k in range(n):
        run = max(np.float32(0), run) + (sums[k + 1] - sums[k])
        most = max(most, run)
        if k < _ENDS:
            head = max(head, sums[k + 1])
        if k >= n - _ENDS:
            tail = max(tail, sums[n] - sums[k])
    ends = min(_ENDS, n)
    above_head = above_tail = above = 0
    for k in range(n):
        if odds[k, 0] > 0:
            above += 1
            above_head += k < ends
            above_tail += k >= n - ends
    out[j] = head
    out[j + 1] = tail
    out[j + 2] = most
    out[j + 3] = above_head
    out[j + 4] = above_tail
    out[j + 5] = above / n
    out[j + 6] = sums[n] / n
    out[j + 7] = max(head, tail) - most
