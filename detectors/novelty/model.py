"""Novelty's model as one object: arrays in, log odds of an attack out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from detectors.novelty import tagger as tagging
from detectors.novelty.features import CHANNELS, CLASS_STEP, CLASSES, FEATURES, channels, measure, window
from detectors.novelty.ngrams import Ngrams
from detectors.novelty.tagger import POOLED, Tagger, Weights
from detectors.novelty.tokens import ROW_TOKENS, Tokeniser
from detectors.novelty.trees import Forest, Trees, evaluate
from detectors.novelty.trees import prepare as prepare_trees

_ALL = FEATURES + POOLED


class Base(NamedTuple):
    """What is learned from natural text alone."""

    tokens: list[bytes]  # in order of rank
    grams: Ngrams
    classes: NDArray[np.uint8]  # (V, CLASSES)


class Parts(NamedTuple):
    """What an artefact holds, beside the score's scale (`scale.py`)."""

    base: Base
    tagger: Weights
    trees: Trees


@nb.njit(cache=True, nogil=True)
def _features(flat: Any, spans: Any, grams: Any, made: Any, tagger: Any, room: Any, out: Any) -> None:
    now, one, two = np.empty(ROW_TOKENS, np.int32), np.empty(ROW_TOKENS, np.int32), np.empty(ROW_TOKENS, np.int32)
    seen = np.zeros((ROW_TOKENS, CHANNELS), np.float32)
    sums = np.zeros((ROW_TOKENS + 1, CHANNELS + CLASSES), np.float32)
    odd_sums = np.zeros(ROW_TOKENS + 1, np.float32)
    for i in range(spans.shape[0]):
        n, cut = window(flat, spans[i], now, one, two)
        if n > 0:
            channels(now, one, two, n, grams, seen)
            measure(now, n, cut, seen, made, sums, out[i])
            tagging.tag(now, n, seen, tagger, room)
            tagging.pool(room.odds, n, odd_sums, out[i, FEATURES:])


@nb.njit(cache=True)
def _windows(flat: Any, spans: Any, grams: Any, rows: Any, seen: Any, lengths: Any) -> None:
    one, two = np.empty(ROW_TOKENS, np.int32), np.empty(ROW_TOKENS, np.int32)
    for i in range(spans.shape[0]):
        lengths[i], _ = window(flat, spans[i], rows[i], one, two)
        channels(rows[i], one, two, lengths[i], grams, seen[i])


class Model:
    """Judges batches; holds no state, and one prompt's answer does not depend on its neighbours."""

    def __init__(self, parts: Parts) -> None:
        """Make the arrays ready for the kernels."""
        self.parts = parts
        self.tokeniser = Tokeniser(parts.base.tokens)
        self._made = parts.base.classes * np.float32(CLASS_STEP)
        self._forest: Forest = prepare_trees(parts.trees)
        self._tagger: Tagger = tagging.prepare(parts.tagger, parts.base.classes)

    def features(self, heads: Sequence[str], tails: Sequence[str]) -> NDArray[np.float32]:
        """(n, FEATURES + POOLED) of prompts given by their ends; zeros where there is no token."""
        flat, spans = self.tokeniser.spans(heads, tails)
        out = np.zeros((len(heads), _ALL), np.float32)
        _features(flat, spans, self.parts.base.grams, self._made, self._tagger, tagging.make_room(), out)
        return out

    def log_odds(self, heads: Sequence[str], tails: Sequence[str]) -> NDArray[np.float32]:
        """(n,) log odds that a prompt carries a trigger, on the training's scale."""
        features = self.features(heads, tails)
        out = np.zeros(len(features))
        evaluate(features, self._forest, out)
        return out.astype(np.float32)


def windows(
    base: Base, heads: Sequence[str], tails: Sequence[str]
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]:
    """Tokens (n, ROW_TOKENS), their channels and the row lengths: what the tagger is trained on."""
    flat, spans = Tokeniser(base.tokens).spans(heads, tails)
    rows = np.zeros((len(heads), ROW_TOKENS), np.int32)
    seen = np.zeros((len(heads), ROW_TOKENS, CHANNELS), np.float32)
    lengths = np.zeros(len(heads), np.int32)
    _windows(flat, spans, base.grams, rows, seen, lengths)
    return rows, seen, lengths
