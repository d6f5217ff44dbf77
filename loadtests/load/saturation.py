"""The saturation curve: what was offered at each step, what came of it, and where it was too much."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from loadtests.load.generated import Generated
from loadtests.load.run import Plan

WITH_IT_MS = 1_000.0  # p99 of event to verdict up to which the service is with it: "within a second"
WITH_IT_SHARE = 0.95  # of what is offered


class Step(msgspec.Struct):
    """One step. `judged_per_s` counts verdicts in the step's time, whenever their requests were due."""

    offered_per_s: float
    judged_per_s: float
    p50_ms: float
    p99_ms: float

    @property
    def is_with_it(self) -> bool:
        """Fast enough, and nothing piles up."""
        return self.p99_ms <= WITH_IT_MS and self.judged_per_s >= WITH_IT_SHARE * self.offered_per_s


class Curve(msgspec.Struct):
    """All steps. `knee_per_s`: the highest offer that the service was with, and with all before; 0: with none."""

    steps: list[Step]
    knee_per_s: float
    seed: int


def curve(generated: Generated, plan: Plan) -> Curve:
    """Cut the run into its steps; the first quarter of each, when it changes, is left out."""
    due = np.array([at for at, _, _ in generated.verdict_at])
    took = np.array([seconds for _, seconds, _ in generated.verdict_at])
    whole = plan.seconds / plan.gateways
    steps = []
    for number in range(plan.gateways):
        first = generated.started + (number + 0.25) * whole
        last = generated.started + (number + 1) * whole
        mine = (due >= first) & (due < last)
        if not mine.any():
            continue
        judged = ((due + took >= first) & (due + took < last)).sum()
        p50, p99 = np.percentile(took[mine], (50, 99)) * 1000
        figures = (mine.sum() / (last - first), judged / (last - first), p50, p99)
        steps.append(Step(*(round(float(value), 1) for value in figures)))
    return Curve(steps, knee(steps), plan.seed)


def knee(steps: Sequence[Step]) -> float:
    """See `Curve.knee_per_s`."""
    found = 0.0
    for step in steps:
        if not step.is_with_it:
            break
        found = step.offered_per_s
    return found


def write(found: Curve, path: Path) -> None:
    """Write it."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
