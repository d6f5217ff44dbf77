"""The sentence transformer as a second opinion on what the static embedding finds near.

It costs milliseconds a prompt, so it runs only where a caller gives it a budget, and torch is imported only
when one is made. Verdicts that must be the same in a replay need a budget that is a function of the log.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Budget = Callable[[], bool]  # asked before each pair: may one more be judged?


class SecondStage(Protocol):
    """Judges pairs of texts, or says which it had no budget for."""

    def cosines(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Cosine of each pair (stretch of a prompt, trigger), -1..1; NaN where the budget is spent."""


class Transformer:
    """A sentence transformer from a folder (`training.sentence_transformer_path`), on the CPU, under a budget."""

    def __init__(self, model: Path, budget: Budget) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(model), device="cpu")
        self._budget = budget

    def cosines(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """See `SecondStage`; pairs are judged in order while the budget lasts."""
        out = np.full(len(pairs), np.nan, np.float32)
        allowed = 0
        while allowed < len(pairs) and self._budget():
            allowed += 1
        if allowed:
            texts = [text for pair in pairs[:allowed] for text in pair]
            vectors = np.asarray(self._model.encode(texts, normalize_embeddings=True, convert_to_numpy=True))
            out[:allowed] = np.einsum("ij,ij->i", vectors[::2], vectors[1::2])
        return out
