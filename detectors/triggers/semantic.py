"""Semantic matching: does some stretch of a prompt mean what a catalogued trigger means.

For fluent triggers and their paraphrases; strings without meaning all resemble each other in an embedding and
belong to the lexical matcher. Each entry is compared with stretches of about its own length only, which costs
a part of comparing everything with everything and keeps short common phrases from matching long entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from detectors.embedding import StaticEmbedding, Vectors
from detectors.text import PromptBatch

# Each product by itself, never by BLAS, whose last bits depend on what else is in the matrix: a prompt that is
# judged again after a restart is in another batch, and its verdict must be the same to the byte.
faiss.cvar.distance_compute_blas_threshold = 1 << 30

# Lengths of stretches in tokens, each about half as long again as the one before.
LADDER = np.array([6, 9, 13, 20, 30, 45, 68, 100], np.int32)


@dataclass(frozen=True, slots=True)
class SemanticMatches:
    """The nearest entry of each row; `entry` -1 and `cosine` 0 where the row has no token or there is no entry."""

    entry: NDArray[np.int32]  # (n,)
    cosine: NDArray[np.float32]  # (n,) -1..1
    begin: NDArray[np.int32]  # (n,) the stretch, in tokens of the row
    end: NDArray[np.int32]


def stretches(
    lengths: NDArray[np.int32], size: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Stretches of `size` tokens over rows of given lengths: (row, begin, end), rows ascending.

    Half overlapping, the last one at the row's end; a shorter row is one stretch.
    """
    step = max(size // 2, 1)
    more = np.maximum(lengths - size, 0)
    counts = np.where(lengths > 0, -(-more // step) + 1, 0)
    row = np.repeat(np.arange(len(lengths), dtype=np.int32), counts)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    begin = np.minimum(nth * step, more[row]).astype(np.int32)
    return row, begin, np.minimum(begin + size, lengths[row]).astype(np.int32)


class SemanticIndex:
    """An immutable index of entries given by their tokens, in exact FAISS indexes by length.

    Flat, since inverted files and graphs lose neighbours as a catalogue grows.
    """

    def __init__(self, embedding: StaticEmbedding, triggers: Sequence[NDArray[np.int32]]) -> None:
        self._embedding = embedding
        sizes = np.array([len(tokens) for tokens in triggers], np.float64)
        rung = (
            np.abs(np.log(np.maximum(sizes, 1))[:, None] - np.log(LADDER)).argmin(axis=1) if len(sizes) else sizes
        )
        self._groups: list[tuple[int, NDArray[np.int32], faiss.IndexFlatIP]] = []
        for i, size in enumerate(LADDER.tolist()):
            members = np.flatnonzero((rung == i) & (sizes > 0)).astype(np.int32)
            if len(members):
                index = faiss.IndexFlatIP(embedding.table.shape[1])
                index.add(np.stack([embedding.of_tokens(triggers[member]) for member in members.tolist()]))
                self._groups.append((size, members, index))

    def __len__(self) -> int:
        return sum(len(members) for _, members, _ in self._groups)

    def match(self, batch: PromptBatch) -> SemanticMatches:
        """The entry nearest to any stretch of each row."""
        # Batches are small: OpenMP's threads would spin longer than they work. The number is the calling thread's
        # own, and who matches is seldom the thread that imported this.
        faiss.omp_set_num_threads(1)
        n = len(batch)
        best = SemanticMatches(
            np.full(n, -1, np.int32), np.zeros(n, np.float32), np.zeros(n, np.int32), np.zeros(n, np.int32)
        )
        for size, members, index in self._groups:
            row, begin, end = stretches(batch.lengths, size)
            if not len(row):
                continue
            vectors: Vectors = self._embedding.windows(batch, row, begin, end)
            cosine, nearest = index.search(vectors, 1)
            starts = np.flatnonzero(np.diff(row, prepend=-1))
            top = np.maximum.reduceat(cosine[:, 0], starts)
            # The first stretch that reaches its row's maximum.
            where = np.flatnonzero(cosine[:, 0] == np.repeat(top, np.diff(starts, append=len(row))))
            rows, first = np.unique(row[where], return_index=True)
            where = where[first]
            better = top > best.cosine[rows]
            rows, where = rows[better], where[better]
            best.entry[rows] = members[nearest[where, 0]]
            best.cosine[rows] = cosine[where, 0]
            best.begin[rows], best.end[rows] = begin[where], end[where]
        return best
