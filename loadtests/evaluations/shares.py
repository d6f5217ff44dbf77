"""Shares with intervals: over triggers, since the uses of one trigger are found or missed together."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.coverage import wilson

RESAMPLES = 2000


class Share(msgspec.Struct, frozen=True):
    """A share and its 95 % interval, all in 0..1; `n` independent things that it is of."""

    share: float
    low: float
    high: float
    n: int


def of_counts(hits: int, n: int) -> Share:
    """Wilson's interval: for things that are independent."""
    interval = wilson(hits, n, z=1.96)
    return Share(hits / max(n, 1), interval.low, interval.high, n)


def over_triggers(found: NDArray[np.bool_], trigger: Sequence[Any] | NDArray[Any], seed: int = 0) -> Share:
    """Of uses found (n,), each of a trigger (n,): bootstrapped over triggers, by percentiles.

    Where all triggers fared alike a bootstrap has no width: there it is Wilson's over triggers.
    """
    _, number = np.unique(np.asarray(trigger), return_inverse=True)
    shares = np.bincount(number, weights=found) / np.bincount(number)
    if np.ptp(shares) == 0:
        return of_counts(round(float(shares[0] * len(shares))), len(shares))
    picks = np.random.default_rng(seed).integers(len(shares), size=(RESAMPLES, len(shares)))
    low, high = np.quantile(shares[picks].mean(axis=1), (0.025, 0.975))
    return Share(float(shares.mean()), float(low), float(high), len(shares))
