"""When requests come, and how many tokens they cost: Azure's inference traces replayed, or bursts of our own."""

import csv
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Arrivals(NamedTuple):
    """`at` in seconds from 0, not decreasing; tokens of each call. All of length n."""

    at: Floats
    input_tokens: Ints
    output_tokens: Ints


def arrivals(n: int, rate: float, seed: int, data: Path | None) -> Arrivals:
    """`n` arrivals at `rate` a second in the mean; the bursts are the trace's, whatever the rate."""
    source = bursts(max(n, 10_000), seed) if data is None else trace(data)
    first = int(np.random.default_rng(seed).integers(len(source.at)))
    pick = np.arange(first, first + n) % len(source.at)
    gaps = np.diff(source.at, prepend=source.at[0])[pick]
    at = np.cumsum(gaps) if n else gaps
    if n and at[-1] > 0:
        at *= n / rate / at[-1]
    return Arrivals(at, source.input_tokens[pick], source.output_tokens[pick])


@lru_cache(maxsize=2)
def trace(data: Path) -> Arrivals:
    """Both services' hour as one: conversation and code, in order of time."""
    rows = []
    for name in ("conv", "code"):
        with (data / "traces" / f"AzureLLMInferenceTrace_{name}.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                at = datetime.fromisoformat(row["TIMESTAMP"][:26]).replace(tzinfo=UTC).timestamp()
                rows.append((at, int(row["ContextTokens"]), int(row["GeneratedTokens"])))
    rows.sort()
    at, given, made = np.array(rows).T
    return Arrivals(at - at[0], given.astype(np.int64), made.astype(np.int64))


def bursts(n: int, seed: int) -> Arrivals:
    """A Poisson process whose rate jumps, up to some twenty times its median; heavy-tailed tokens."""
    rng = np.random.default_rng(seed)
    spells = rng.geometric(1 / 60, size=n)  # arrivals until the rate changes
    pace = np.repeat(np.exp(rng.normal(0, 1, size=n)), spells)[:n]
    at = np.cumsum(rng.exponential(1 / pace))
    given = np.clip(rng.lognormal(6.6, 1.1, n), 3, 14_000).astype(np.int64)
    made = np.clip(rng.lognormal(4.6, 1.0, n), 1, 1_500).astype(np.int64)
    return Arrivals(at, given, made)
