"""Runs of all methods under all attacks, and their means over seeds with intervals."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial

import msgspec
import numpy as np

from loadtests.feedback.methods import methods
from loadtests.feedback.scores import Scores, made_up, trained
from loadtests.feedback.world import ALPHA, ATTACKS, DAYS, LABELS_PER_DAY, Attack, World

ROUTERS = 4  # routers trained; seeds take turns
BURN_IN = 1 / 6  # of a run, before the greatest miss risk is read


class Plan(msgspec.Struct, kw_only=True, frozen=True):
    """How much is played."""

    seeds: int = 20
    days: int = DAYS
    labels_per_day: int = LABELS_PER_DAY
    made_up: bool = False  # scores from two bells even where there are data
    processes: int = 2


class Run(msgspec.Struct, kw_only=True, frozen=True):
    """One method under one attack with one seed."""

    method: str
    risk: list[float]  # true miss risk, day by day
    benign_flagged: float  # at the end
    over_oracle: float  # the same, over the oracle threshold's
    loosened: int
    tightened: int
    labels_used: int


class Row(msgspec.Struct, kw_only=True, frozen=True):
    """Means over seeds; `_low` and `_high` are 95 % intervals of the mean (t), `_worst` is of the worst seed."""

    attack: str
    method: str
    inside: bool  # whether the attack is within what the ratchet's guarantee covers
    about: str
    miss_risk_end: float
    miss_risk_end_low: float
    miss_risk_end_high: float
    miss_risk_max: float
    miss_risk_max_low: float
    miss_risk_max_high: float
    miss_risk_max_worst: float
    days_over_alpha: float
    benign_flagged: float
    benign_flagged_low: float
    benign_flagged_high: float
    over_oracle: float
    over_oracle_low: float
    over_oracle_high: float
    loosened: float
    tightened: float
    labels_used: float
    seeds: int
    alpha: float
    risk_by_day: list[float]


@lru_cache(maxsize=ROUTERS)
def _scores(seed: int, invented: bool) -> Scores:
    return made_up(seed) if invented else trained(seed)


def play(plan: Plan, job: tuple[Attack, int]) -> list[Run]:
    """All methods on the same days."""
    attack, seed = job
    world = World(_scores(seed % ROUTERS, plan.made_up), attack, seed, plan.days, plan.labels_per_day)
    days, oracle = world.play(), world.scores.flagged(world.oracle())
    runs = []
    for method in methods(world):
        risk = [day.unsafe_share * world.scores.missed(method.learn(day)) for day in days]
        flagged = world.scores.flagged(method.threshold)
        runs.append(
            Run(
                method=method.name, risk=risk, benign_flagged=flagged, over_oracle=flagged / oracle,
                loosened=method.loosened, tightened=method.tightened, labels_used=method.labels_used,
            )
        )  # fmt: skip
    return runs


def simulate(plan: Plan, tell: Callable[[str], None]) -> list[Row]:
    """Every attack and method: means over seeds."""
    jobs = [(attack, seed) for attack in ATTACKS for seed in range(plan.seeds)]
    found: dict[tuple[str, str], list[Run]] = {}
    for seed in range(min(ROUTERS, plan.seeds)):
        _scores(seed, plan.made_up)  # trained here once: the workers are forks
    with ProcessPoolExecutor(plan.processes) as pool:
        for (attack, seed), runs in zip(jobs, pool.map(partial(play, plan), jobs), strict=True):
            for run in runs:
                found.setdefault((attack.name, run.method), []).append(run)
            if seed == plan.seeds - 1:
                tell(attack.name)
    attacks = {attack.name: attack for attack in ATTACKS}
    return [_row(attacks[name], method, runs) for (name, method), runs in found.items()]


def _row(attack: Attack, method: str, runs: Sequence[Run]) -> Row:
    burnt = math.ceil(len(runs[0].risk) * BURN_IN)
    most = [max(run.risk[burnt:]) for run in runs]
    end, end_low, end_high = interval([run.risk[-1] for run in runs])
    top, top_low, top_high = interval(most)
    flagged, flagged_low, flagged_high = interval([run.benign_flagged for run in runs])
    over, over_low, over_high = interval([run.over_oracle for run in runs])
    return Row(
        attack=attack.name,
        method=method,
        inside=attack.inside,
        about=attack.about,
        miss_risk_end=end,
        miss_risk_end_low=end_low,
        miss_risk_end_high=end_high,
        miss_risk_max=top,
        miss_risk_max_low=top_low,
        miss_risk_max_high=top_high,
        miss_risk_max_worst=max(most),
        days_over_alpha=float(np.mean([sum(risk > ALPHA for risk in run.risk[burnt:]) for run in runs])),
        benign_flagged=flagged,
        benign_flagged_low=flagged_low,
        benign_flagged_high=flagged_high,
        over_oracle=over,
        over_oracle_low=over_low,
        over_oracle_high=over_high,
        loosened=float(np.mean([run.loosened for run in runs])),
        tightened=float(np.mean([run.tightened for run in runs])),
        labels_used=float(np.mean([run.labels_used for run in runs])),
        seeds=len(runs),
        alpha=ALPHA,
        risk_by_day=np.mean([run.risk for run in runs], axis=0).tolist(),
    )


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and its 95 % interval by Student's t; the mean alone for one value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, mean, mean
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return mean, mean - half, mean + half
