"""Scores of safe and unsafe prompts, by routers trained for each seed; made-up ones where there are no data."""

import random
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from loadtests.prompts import benign, data_dir, unsafe

Floats = npt.NDArray[np.float64]
Kind = Literal["words", "chars"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DRAWN = 40_000  # scores of each population
SMOOTH = 0.15  # of the scores' spread: a few hundred unsafe prompts make a rough distribution
SAFE_PROMPTS = 6_000
CHARS = 500


@dataclass(frozen=True)
class Scores:
    """What a router that sends unsafe prompts to a guarded route gives: higher is more unsafe; rising arrays."""

    safe: Floats
    unsafe: Floats
    calibration: Floats  # of safe prompts that an operator had before: drawn like `safe`

    def missed(self, thresholds: Floats) -> float:
        """Share of unsafe prompts below a threshold, mean over thresholds."""
        return float(np.searchsorted(self.unsafe, thresholds).mean() / len(self.unsafe))

    def flagged(self, threshold: float) -> float:
        """Share of safe prompts at or above a threshold."""
        return 1 - float(np.searchsorted(self.safe, threshold) / len(self.safe))


def made_up(seed: int) -> Scores:
    """Two overlapping bells, log odds of a middling classifier."""
    rng = np.random.default_rng(seed)
    safe = rng.normal(-3.5, 1.4, (2, DRAWN))
    return Scores(np.sort(safe[0]), np.sort(rng.normal(1.3, 1.6, DRAWN)), np.sort(safe[1]))


def trained(seed: int) -> Scores:
    """Of a router trained on half of the unsafe prompts and a third of the safe ones, scored on the others.

    Seeds take turns between two kinds of feature. Without POINTSMAN_DATA: `made_up`.
    """
    data = data_dir()
    if data is None:
        return made_up(seed)
    rng = random.Random(seed)
    safe = [prompt.text[:CHARS] for prompt in benign(data)]
    bad = [text[:CHARS] for text in unsafe(data)]
    rng.shuffle(safe)
    rng.shuffle(bad)
    third, half = SAFE_PROMPTS // 3, len(bad) // 2
    texts = safe[:SAFE_PROMPTS] + bad
    rows = _features(KINDS[seed % len(KINDS)], texts)
    train = [*range(third), *range(SAFE_PROMPTS, SAFE_PROMPTS + half)]
    from sklearn.linear_model import LogisticRegression

    line = LogisticRegression(solver="liblinear").fit(rows[train], [i >= SAFE_PROMPTS for i in train])
    found = line.decision_function(rows)
    held, harmful = found[third:SAFE_PROMPTS], found[SAFE_PROMPTS + half :]
    return Scores(_smooth(held, seed), _smooth(harmful, seed + 1), _smooth(held, seed + 2))


def _features(kind: Kind, texts: list[str]) -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    options: dict[str, Any] = (
        {"ngram_range": (1, 2)} if kind == "words" else {"analyzer": "char_wb", "ngram_range": (2, 4)}
    )
    return HashingVectorizer(alternate_sign=False, n_features=1 << 17, **options).transform(texts)


def _smooth(found: Floats, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    drawn: Floats = np.sort(rng.choice(found, DRAWN) + rng.normal(0, SMOOTH * found.std(), DRAWN))
    return drawn
