"""The sentence transformer as a second opinion on what the static embedding finds near.

It costs milliseconds a prompt, so it runs only under a budget (detectors/budget.py), and torch is imported only
when one is made.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

DECIMALS = 4  # what is kept of a cosine: how a batch was cut shows in the last bits


class SecondStage(Protocol):
    """Judges pairs of texts."""

    def cosines(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Cosine of each pair (stretch of a prompt, trigger), -1..1."""


class Transformer:
    """A sentence transformer's folder (`training.sentence_transformer_path`), on the CPU."""

    def __init__(self, model: Path) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(model), device="cpu")

    def cosines(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """See `SecondStage`."""
        texts = [text for pair in pairs for text in pair]
        vectors = np.asarray(self._model.encode(texts, normalize_embeddings=True, convert_to_numpy=True))
        cosines = np.einsum("ij,ij->i", vectors[::2], vectors[1::2])
        return np.asarray(np.round(cosines, DECIMALS), np.float32)
