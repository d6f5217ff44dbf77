"""A static embedding of prompts: one vector a token, so every stretch of a prompt is a difference of two sums.

The token vectors are distilled once from a sentence transformer over the project's own vocabulary, as
Model2Vec does (Tulkens and van Dongen, 2024): encode each token's string, reduce by principal components,
weigh by smooth inverse frequency (Arora, Liang and Ma, ICLR 2017). Shipped as `artefacts/embedding.npz`
(int8, a scale a token); `pointsman text distil` makes it anew. Nothing here imports torch.
"""

from functools import cache
from pathlib import Path

import numpy as np
from numba import float32, int32, njit, void
from numpy.typing import NDArray

from detectors.text import PromptBatch

ARTEFACT = Path(__file__).with_name("artefacts") / "embedding.npz"
DIMENSIONS = 64

Vectors = NDArray[np.float32]


@njit(void(int32[:, ::1], int32[::1], float32[:, ::1], float32[:, ::1]), cache=True, nogil=True)
def _sum_rows(rows, sizes, table, out):  # type: ignore[no-untyped-def]
    for r in range(rows.shape[0]):
        for d in range(table.shape[1]):
            out[r, d] = 0
        for i in range(sizes[r]):
            token = rows[r, i]
            for d in range(table.shape[1]):
                out[r, d] += table[token, d]


@njit(
    void(int32[:, ::1], int32[::1], int32[::1], int32[::1], int32[::1], float32[:, ::1], float32[:, ::1]),
    cache=True, nogil=True,
)  # fmt: skip
def _sum_windows(rows, at, row, begin, end, table, out):  # type: ignore[no-untyped-def]
    """Windows of one row stand together: `at` (n + 1) says where each row's begin."""
    width = rows.shape[1]
    sums = np.zeros((width + 1, table.shape[1]), np.float32)
    for r in range(rows.shape[0]):
        if at[r] == at[r + 1]:
            continue
        last = 0
        for k in range(at[r], at[r + 1]):
            last = max(last, end[k])
        for i in range(last):
            token = rows[r, i]
            for d in range(table.shape[1]):
                sums[i + 1, d] = sums[i, d] + table[token, d]
        for k in range(at[r], at[r + 1]):
            for d in range(table.shape[1]):
                out[k, d] = sums[end[k], d] - sums[begin[k], d]


def _unit_length(vectors: Vectors) -> Vectors:
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    unit: Vectors = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 1e-6)
    return unit


class StaticEmbedding:
    """Token vectors, weighted. `vectors` is what `difficulty`, topics and near-duplicates use."""

    def __init__(self, table: Vectors) -> None:
        self.table = np.ascontiguousarray(table, np.float32)

    def vectors(self, batch: PromptBatch) -> Vectors:
        """The prompts' vectors (n, 64), float32, unit length; zeros where there is no token."""
        out = np.empty((len(batch), self.table.shape[1]), np.float32)
        _sum_rows(batch.tokens, batch.lengths, self.table, out)
        return _unit_length(out)

    def windows(self, batch: PromptBatch, row: NDArray[np.int32], begin: NDArray[np.int32],
                end: NDArray[np.int32]) -> Vectors:  # fmt: skip
        """Vectors (k, 64), unit length, of token stretches [begin, end) of rows; `row` (k,) ascends."""
        at = np.searchsorted(row, np.arange(len(batch) + 1)).astype(np.int32)
        out = np.empty((len(row), self.table.shape[1]), np.float32)
        _sum_windows(batch.tokens, at, row, begin, end, self.table, out)
        return _unit_length(out)

    def of_tokens(self, tokens: NDArray[np.int32]) -> Vectors:
        """The vector (64,), unit length, of a text given by all its tokens."""
        unit: Vectors = _unit_length(self.table[tokens].sum(axis=0, keepdims=True, dtype=np.float32))[0]
        return unit


def save(path: Path, table: Vectors) -> None:
    """Write token vectors as int8 with a scale a token: cosines keep to about 0.01."""
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-9) / 127
    np.savez_compressed(path, vectors=np.round(table / scale).astype(np.int8), scale=scale.astype(np.float16))


@cache
def static_embedding(path: Path = ARTEFACT) -> StaticEmbedding:
    """The shipped embedding, or one at `path`; loaded once a process."""
    with np.load(path, allow_pickle=False) as stored:
        return StaticEmbedding(stored["vectors"] * stored["scale"].astype(np.float32))
