"""Log odds to a score that reads as a benign quantile: 0.9995 is what one benign prompt in 2,000 exceeds."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_LEAST_BEYOND = 12  # benign prompts above the last knot: what is beyond is extrapolated
_FAR = 9.0  # decades: the score is below 1 - 1e-9
_KNOTS_A_DECADE = 8


class Scale(NamedTuple):
    """Knots of a benign sample's tail: log odds, and -log10 of the share of benign prompts above them."""

    log_odds: NDArray[np.float64]  # (knots,), rising
    decades: NDArray[np.float64]  # (knots,), rising from 0

    def score(self, log_odds: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores in [0, 1): 1 - the share of benign prompts above; beyond the sample its tail goes on straight."""
        slope = (self.decades[-1] - self.decades[-4]) / max(self.log_odds[-1] - self.log_odds[-4], 1e-6)
        beyond = np.maximum(log_odds - self.log_odds[-1], 0) * slope
        decades = np.interp(log_odds, self.log_odds, self.decades) + beyond
        scores: NDArray[np.float64] = 1 - 10 ** -np.minimum(decades, _FAR)
        return scores


def fit_scale(log_odds: NDArray[np.float32]) -> Scale:
    """The scale of a benign sample.

    Raises:
        ValueError: fewer than 200 prompts, which say nothing about one in a thousand.
    """
    n = len(log_odds)
    if n < 200:
        raise ValueError(f"a benign sample of {n} prompts is too small to set a scale: at least 200")
    last = np.log10(n / _LEAST_BEYOND)
    decades = np.linspace(0, last, max(5, int(last * _KNOTS_A_DECADE)))
    knots = np.quantile(log_odds.astype(np.float64), 1 - 10**-decades)
    return Scale(np.maximum.accumulate(knots + np.arange(len(knots)) * 1e-9), decades)
