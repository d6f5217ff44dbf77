"""The check before a trigger may be approved: does it tell enough, and do benign texts hold it.

Bits alone are not enough: a common template can have many and still be in ordinary use.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detectors.embedding import static_embedding
from detectors.text import PromptBatch, read_texts, tokenise
from detectors.thresholds import Thresholds
from detectors.triggers.lexical import LexicalIndex, units_of, views_of
from detectors.triggers.semantic import SemanticIndex
from detectors.vocabulary import vocabulary
from schemas.triggers import Trigger

REFUSE_BITS = 45.0
WARN_BITS = 60.0
HIT_SHARE = 0.7
_BATCH = 1024


@dataclass(frozen=True, slots=True)
class Review:
    """What the check found. `hits` are indexes into the reference: benign texts that the trigger would match."""

    bits: float  # of the trigger, or of its weakest unit where it is long
    hits: tuple[int, ...]

    @property
    def refusal(self) -> str:
        """Why it must not be approved; empty if it may."""
        if self.bits < REFUSE_BITS:
            return f"{self.bits:.0f} bits are too few to tell it from chance (at least {REFUSE_BITS:.0f})"
        return f"in {len(self.hits)} benign texts" if self.hits else ""

    @property
    def warning(self) -> str:
        """What a reviewer should know; empty if nothing."""
        return f"only {self.bits:.0f} bits (better {WARN_BITS:.0f})" if self.bits < WARN_BITS else ""


class Reviewer:
    """Holds a benign reference, read once."""

    def __init__(self, reference: Sequence[str], thresholds: Thresholds) -> None:
        self._batches: list[PromptBatch] = [
            read_texts(reference[at : at + _BATCH]) for at in range(0, len(reference), _BATCH)
        ]
        self._thresholds = thresholds

    def review(self, trigger: Trigger) -> Review:
        """Check one trigger: tokens for what is matched lexically, meaning for what is matched semantically."""
        bits = vocabulary().bits
        units = units_of(tokenise([trigger.text])[0])
        weakest = min((float(bits[np.unique(unit)].sum()) for unit in units), default=0.0)
        hit = np.concatenate([np.zeros(0, np.bool_), *(self._hits(trigger, batch) for batch in self._batches)])
        return Review(weakest, tuple(np.flatnonzero(hit).tolist()))

    def _hits(self, trigger: Trigger, batch: PromptBatch) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        hit = np.zeros(len(batch), np.bool_)
        if trigger.kind != "semantic":
            index = LexicalIndex(views_of([trigger.text]))
            hit |= index.match(batch.tokens, batch.lengths, HIT_SHARE, least_bits=0).entry >= 0
        if trigger.kind != "lexical":
            index_of_meaning = SemanticIndex(static_embedding(), tokenise([trigger.text]))
            hit |= index_of_meaning.match(batch).cosine > self._thresholds["triggers.cosine"]
        return hit
