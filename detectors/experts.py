"""Experts: does a mixture-of-experts back end use the experts that prompts like this one get?

Where a back end reports how many tokens each expert of each layer took, an attack on its routing shows: experts
that carry refusal switched off (L3, arXiv:2602.08741; SAFEx, arXiv:2506.17368) or others switched on (SteerMoE,
arXiv:2509.09660). Two numbers are made of a load, against the mean load of the same model and topic:

- *silenced*: how unlikely the silence of experts is that got no token at all, summed over those whose silence alone
  has odds of less than a thousand to one;
- *crowded*: how far the most crowded expert is above its share, in standard deviations.

Tokens of one text resemble each other: counts are taken for negative binomial, and both numbers, in log scale, are
compared with what ordinary requests of the same model and about the same number of tokens have.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.contract import Answer, Case
from detectors.keyed import Keyed, compound_key
from detectors.thresholds import Thresholds
from schemas.verdicts import Reason

MOST_EXPERTS = 16_384  # of all layers together; a load with more is not judged
LEAST_TOKENS = 32  # of a layer
LEAST = 50  # loads of a baseline, and of a scale, before they judge
MEMORY = 500  # loads that a baseline's and a scale's means look back on
SELDOM = 16  # once it is known, a baseline learns from one load in so many: it is large, and changes little
DISPERSION = 8.0  # of the negative binomial: single requests differ by a third in what they use an expert for
LEAST_SURPRISE = 7.0  # nats, of one expert's silence
LEAST_SDS = (0.5, 0.1)  # of both log statistics
BASELINES = 64  # of a partition, 4 B an expert each
SCALES = 256
TOPIC_BITS = 3  # of the prompt's likeness: its coarsest signs

_STATISTICS = ("silenced", "crowded")
_KINDS = {"silenced": "experts_silenced", "crowded": "experts_crowded"}
_NOTES = {
    "silenced": "experts that prompts like this one use got no token at all",
    "crowded": "an expert got far more tokens than prompts like this one give it",
}
_SCALE = struct.Struct("<I4d")
_COUNT = struct.Struct("<I")

Loads = NDArray[np.float64]


@dataclass(slots=True)
class _Baseline:
    """The mean share of each expert within its layer."""

    loads: int
    shares: NDArray[np.float32]

    def pack(self) -> bytes:
        return _COUNT.pack(self.loads) + self.shares.tobytes()

    @classmethod
    def unpack(cls, value: bytes) -> "_Baseline":
        return cls(_COUNT.unpack_from(value)[0], np.frombuffer(value, np.float32, offset=_COUNT.size))


class _Scale(NamedTuple):
    """Mean and variance of both log statistics."""

    loads: int = 0
    means: tuple[float, float] = (0.0, 0.0)
    variances: tuple[float, float] = (0.0, 0.0)

    def pack(self) -> bytes:
        return _SCALE.pack(self.loads, *self.means, *self.variances)

    @classmethod
    def unpack(cls, value: bytes) -> "_Scale":
        loads, *rest = _SCALE.unpack(value)
        return cls(loads, (rest[0], rest[1]), (rest[2], rest[3]))

    def deviations(self, logs: tuple[float, float]) -> tuple[float, float]:
        """Both in standard deviations above the mean."""
        first, second = (
            (log - mean) / max(least, math.sqrt(variance))
            for log, mean, variance, least in zip(logs, self.means, self.variances, LEAST_SDS, strict=True)
        )
        return first, second

    def with_(self, logs: tuple[float, float]) -> "_Scale":
        loads = min(MEMORY, self.loads + 1)
        deltas = [log - mean for log, mean in zip(logs, self.means, strict=True)]
        means = [mean + delta / loads for mean, delta in zip(self.means, deltas, strict=True)]
        variances = [
            (1 - 1 / loads) * (variance + delta * delta / loads)
            for variance, delta in zip(self.variances, deltas, strict=True)
        ]
        return _Scale(loads, (means[0], means[1]), (variances[0], variances[1]))


class _Taken(NamedTuple):
    """What scoring worked out; `learn` takes it over."""

    case: Case
    baseline_key: str
    scale_key: str
    baseline: _Baseline
    scale: _Scale
    shares: Loads
    logs: tuple[float, float] | None  # None: the baseline is too young
    answer: Answer


class Experts:
    """A StreamDetector. Judges at the outcome, where it has an `expert_load`; elsewhere it cannot judge."""

    name = "experts"
    version = "1"
    kinds = ("experts_crowded", "experts_silenced")

    def __init__(self, thresholds: Thresholds, baselines: int = BASELINES, scales: int = SCALES) -> None:
        self._thresholds = thresholds
        self._baselines = Keyed("b/", baselines, _Baseline.pack, _Baseline.unpack)
        self._scales = Keyed("s/", scales, _Scale.pack, _Scale.unpack)
        self._taken: _Taken | None = None

    @property
    def evicted(self) -> int:
        """Keys dropped by this process for want of room."""
        return self._baselines.evicted + self._scales.evicted

    def score(self, case: Case) -> Answer:
        """The larger of both deviations; None: no load, too few tokens, or too little known of the model."""
        if case.outcome is None or not case.outcome.expert_load:
            return None
        self._taken = self._take(case, case.outcome.expert_load)
        return self._taken.answer if self._taken is not None else None

    def learn(self, case: Case, flagged: bool) -> None:
        """Move the means, unless the case is flagged."""
        if case.outcome is None or not case.outcome.expert_load:
            return
        taken, self._taken = self._taken, None
        if taken is None or taken.case is not case:
            taken = self._take(case, case.outcome.expert_load)
        if taken is None or flagged:
            return
        scale, baseline = taken.scale, taken.baseline
        if taken.logs is not None:
            scale = scale.with_(taken.logs)
            self._scales.put(taken.scale_key, scale, scale.loads >= LEAST)
        if baseline.loads < LEAST or scale.loads % SELDOM == 0:
            loads = min(MEMORY, baseline.loads + 1)
            shares = baseline.shares + (taken.shares.astype(np.float32) - baseline.shares) / np.float32(loads)
            self._baselines.put(taken.baseline_key, _Baseline(loads, shares), loads >= LEAST)

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """See `StreamDetector.changes`."""
        yield from self._baselines.changes()
        yield from self._scales.changes()

    def snapshot(self) -> dict[str, bytes]:
        """See `StreamDetector.snapshot`."""
        return self._baselines.snapshot() | self._scales.snapshot()

    def load(self, key: str, value: bytes | None) -> None:
        """See `StreamDetector.load`."""
        self._taken = None
        if not self._baselines.load(key, value):
            self._scales.load(key, value)

    def _take(self, case: Case, load: Sequence[Sequence[int]]) -> _Taken | None:
        """Both statistics of the load against its baseline, and the answer; changes nothing."""
        sizes = [len(layer) for layer in load]
        if not all(sizes) or sum(sizes) > MOST_EXPERTS:
            return None
        counts = np.fromiter((count for layer in load for count in layer), np.float64, sum(sizes))
        tokens = np.add.reduceat(counts, np.cumsum([0, *sizes[:-1]]))
        if tokens.min() < LEAST_TOKENS:
            return None
        of_layer = np.repeat(tokens, sizes)
        shares = counts / of_layer
        model = case.route.selected_model if case.route is not None else ""
        shape = f"{len(sizes)}/{sum(sizes)}"
        topic = case.prompt.likeness >> (64 - TOPIC_BITS)
        baseline_key = compound_key(model, shape, f"{topic}")
        scale_key = compound_key(model, shape, f"{int(math.log2(tokens.mean()))}")
        known = self._baselines.get(baseline_key) or _Baseline(0, np.zeros(len(counts), np.float32))
        value = self._scales.get(scale_key) or _Scale()
        if known.loads < LEAST:
            return _Taken(case, baseline_key, scale_key, known, value, shares, None, None)
        logs = _statistics(counts, of_layer, known, np.repeat(1 / np.array(sizes), sizes))
        answer = self._answer(value.deviations(logs)) if value.loads >= LEAST else None
        return _Taken(case, baseline_key, scale_key, known, value, shares, logs, answer)

    def _answer(self, deviations: tuple[float, float]) -> Answer:
        beyond = [
            (deviation / self._thresholds[f"experts.{name}"], name, deviation)
            for name, deviation in zip(_STATISTICS, deviations, strict=True)
        ]
        part, name, deviation = max(beyond)
        if part < 1:
            return max(deviations)
        return Reason(
            detector=self.name,
            detector_version=self.version,
            score=deviation,
            threshold=self._thresholds[f"experts.{name}"],
            threshold_version=self._thresholds.version,
            flagged=True,
            kind=_KINDS[name],
            stage=name,
            note=_NOTES[name],
        )


def _statistics(counts: Loads, of_layer: Loads, known: _Baseline, uniform: Loads) -> tuple[float, float]:
    """Logs of (nats of the silent experts, standard deviations of the most crowded one)."""
    expected = of_layer * (known.shares * known.loads + uniform) / (known.loads + 1)  # never 0
    surprise = DISPERSION * np.log1p(expected[counts == 0] / DISPERSION)
    silenced = surprise[surprise > LEAST_SURPRISE].sum()
    crowded = ((counts - expected) / np.sqrt(expected + expected * expected / DISPERSION)).max()
    return math.log1p(float(silenced)), math.log1p(max(0.0, float(crowded)))
