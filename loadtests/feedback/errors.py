"""How often a bet says "safe" of what is not: many runs at once, on the ratchet's own tables of factors.

At the boundary: the true miss risk of the threshold asked for is alpha, all the time. Looked at after every label,
a run errs when the bet has reached 1 / delta once. `python -m loadtests.feedback.errors` prints the docs' table.
"""

import math
from typing import Literal, get_args

import click
import msgspec
import numpy as np
import numpy.typing as npt

from detectors.coverage import wilson
from detectors.ratchet import RatchetConfig
from detectors.ratchet.evidence import BETS, tables

Floats = npt.NDArray[np.float64]
Case = Literal["plain", "corrupted", "corrupted when it helps", "corruption not allowed for", "delayed"]
CASES: tuple[Case, ...] = get_args(Case)
PASSED = 0.9  # share of requests that score below the threshold
CORRUPTED = 0.1  # epsilon, as a share of alpha
LATEST = 500  # labels that a delayed one can be late by


class Errors(msgspec.Struct, frozen=True):
    """Runs that erred, and the 95 % interval of their share."""

    case: str
    runs: int
    erred: int
    share: float
    low: float
    high: float


def config_of(case: Case, alpha: float, delta: float) -> RatchetConfig:
    """One threshold to ask for; a judge that misses some and cries wolf at times."""
    allowed_for = case in ("corrupted", "corrupted when it helps")
    return RatchetConfig(
        grid=(0.0, 1.0), start=0, ceiling=1, alpha=alpha, delta=delta, sensitivity=0.9, specificity=0.999,
        epsilon=CORRUPTED * alpha if allowed_for else 0.0,
    )  # fmt: skip


def log_terms(config: RatchetConfig) -> Floats:
    """[3, bets] growth of the upper threshold's log bets: by a flagged label, a passed safe one, a miss."""
    _, terms = tables(config)
    bets = len(BETS)
    return np.array([terms(1.0, False)[2][1, :bets], terms(1.0, False)[0][1, :bets], terms(1.0, True)[0][1, :bets]])


def log_e(logs: Floats) -> Floats:
    """[runs] logs of the e-values of [runs, bets] log bets."""
    most = logs.max(axis=1)
    found: Floats = most + np.log(np.exp(logs - most[:, None]).mean(axis=1))
    return found


def count(case: Case, runs: int, labels: int, alpha: float = 0.01, delta: float = 0.01, seed: int = 0) -> Errors:
    """Play the runs. The adversary sees all bets and corrupts a share epsilon of the labels, misses all of them."""
    config, rng = config_of(case, alpha, delta), np.random.default_rng(seed)
    growth = log_terms(config)
    judged = alpha * config.sensitivity + (PASSED - alpha) * (1 - config.specificity)
    corruption = 0.0 if case in ("plain", "delayed") else CORRUPTED * alpha
    logs, erred, bar = np.zeros((runs, len(BETS))), np.zeros(runs, np.bool_), -math.log(delta)
    wealth = np.zeros(runs)
    # Late labels: each slot of the ring holds labels that come in when the ring has turned.
    ring = rng.random((LATEST, runs)) if case == "delayed" else None
    for _ in range(labels):
        luck = rng.random(runs)
        if ring is not None:
            slots = rng.integers(LATEST, size=runs)
            everyone = np.arange(runs)
            luck, ring[slots, everyone] = ring[slots, everyone], luck
        presses = wealth >= 0 if case == "corrupted when it helps" else True
        miss = luck < judged - corruption * presses
        kind = np.where(miss, 2, np.where(luck < PASSED, 1, 0))
        logs += growth[kind]
        wealth = log_e(logs)
        erred |= wealth >= bar
    found = wilson(int(erred.sum()), runs, 1.96)
    return Errors(case, runs, int(erred.sum()), *found)


@click.command()
@click.option("--runs", default=20_000, show_default=True)
@click.option("--labels", default=20_000, show_default=True, help="Of a run.")
@click.option("--json", "as_json", is_flag=True)
def main(runs: int, labels: int, as_json: bool) -> None:
    """Share of runs that ever err, at alpha = delta = 1 %."""
    for case in CASES:
        found = count(case, runs, labels)
        if as_json:
            click.echo(msgspec.json.encode(found).decode())
        else:
            click.echo(
                f"| {case} | {found.erred} of {runs} | {found.share:.2%} | {found.low:.2%} to {found.high:.2%} |"
            )


if __name__ == "__main__":
    main()
