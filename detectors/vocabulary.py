"""The project's own byte-pair vocabulary over folded text, and how much each of its tokens tells.

Shipped as `artefacts/vocabulary.npz` (plain arrays, no pickle); `pointsman text fit` makes it anew.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detectors.bytepairs import BytePairs

ARTEFACT = Path(__file__).with_name("artefacts") / "vocabulary.npz"
SIZE = 32_766
# White space is in none of the pieces: a text has the same tokens with and without a space before it.
PATTERN = r"\p{L}+|\p{N}{1,3}|[^\s\p{L}\p{N}]"  # as `BytePairs` cuts what has no case

BITS_STEP = 1 / 16  # of the weights on disk
FREE_BITS = 4.0  # what a token must exceed to tell anything
CAP_BITS = 18.0  # rarer than this cannot be told from noise in a few million tokens


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """An encoder and, for each token, its information in bits, 0..14: max(0, min(18, -log2 p) - 4)."""

    pairs: BytePairs
    bits: NDArray[np.float32]  # (SIZE,)

    def encode(self, folded: list[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Encode folded texts in one compiled call, which releases the GIL.

        Returns the tokens of all texts one after the other, runs of one token collapsed to one, and the
        offsets (n + 1,) at which each text begins.
        """
        flat, offsets = self.pairs.encode(folded)
        keep = np.ones(len(flat) + 1, np.bool_)
        keep[1:-1] = flat[1:] != flat[:-1]
        keep[offsets] = True
        kept = np.concatenate([[0], np.cumsum(keep[:-1])])
        return flat[keep[:-1]], kept[offsets]

    def strings(self) -> list[str]:
        """What each token reads as (SIZE,); parts of characters as U+FFFD."""
        return [token.decode("utf-8", "replace") for token in self.pairs.tokens]


def save(path: Path, tokens: list[bytes], probability: NDArray[np.float64]) -> None:
    """Write a vocabulary: the tokens in order of rank, and each one's share of natural text."""
    bits = np.clip(-np.log2(np.maximum(probability, 2.0**-60)), None, CAP_BITS) - FREE_BITS
    np.savez_compressed(
        path,
        bytes=np.frombuffer(b"".join(tokens), np.uint8),
        lengths=np.array([len(token) for token in tokens], np.uint8),
        bits=np.round(np.maximum(bits, 0) / BITS_STEP).astype(np.uint8),
    )


@cache
def vocabulary(path: Path = ARTEFACT) -> Vocabulary:
    """The shipped vocabulary, or one at `path`; loaded once a process."""
    with np.load(path, allow_pickle=False) as stored:
        raw, ends = stored["bytes"].tobytes(), np.cumsum(stored["lengths"], dtype=np.int64)
        stored_bits = stored["bits"]
    tokens = [raw[a:b] for a, b in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)]
    return Vocabulary(BytePairs(tokens, cased=False), stored_bits * np.float32(BITS_STEP))
