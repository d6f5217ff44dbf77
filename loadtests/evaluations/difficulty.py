"""How `difficulty` does on real routers: `python -m loadtests.evaluations.difficulty` prints its page's tables.

Prompts are the benign ones and those of the routing sets, in a seeded order, from 200 principals. After a warm-up
each is judged as it came, and again as if its score had been forged. At the end some principals, old ones and new
ones, forge the scores of hard prompts one after another.
"""

import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
from river import linear_model, optim, preprocessing

from detectors.contract import Case
from detectors.difficulty import Difficulty
from detectors.difficulty.model import FEATURES, features
from detectors.thresholds import Thresholds
from loadtests.evaluations.scored import NOISES, Floats, Scored, flagged, scored
from loadtests.router import Kind

WARM = 4_000
PRINCIPALS = 200
RATES = (0.001, 0.0003)
FORGERS = 50  # with a past, and as many without
RUN = 20  # scores that each forges
TELLING = 5  # findings of one principal that are an alert (detections/shipped/spoofed_difficulty.yml)


@dataclass
class Judged:
    """Residuals after the warm-up, honest ones and of hard prompts with a forged score; what was flagged."""

    clean: Floats
    lowered: Floats
    false: float  # share of honest scores
    callers: int  # honest ones with an alert's number of findings
    found: float  # share of single forged scores
    runs: list[int]  # forged scores until the alert, of the forgers that had one


def judged(prompts: Scored, scores: Floats, forged: float) -> Judged:
    """Play all prompts, and forgeries."""
    detector = Difficulty(Thresholds())
    clean, lowered, found = [], [], 0
    false: Counter[str] = Counter()
    hard = float(np.quantile(scores, 0.6))
    for i, score in enumerate(scores.tolist()):
        case = prompts.case(i, score, f"p{i % PRINCIPALS}", float(i))
        answer, residual = detector.score(case), detector.residual(case)
        if i >= WARM and residual is not None:
            clean.append(residual)
            false[case.request.principal_hash] += flagged(answer)
            if score > hard:
                forgery = prompts.case(i, forged, f"p{i % PRINCIPALS}", float(i))
                lowered.append(detector.residual(forgery) or 0.0)
                found += flagged(detector.score(forgery))
        detector.learn(case, flagged(answer))
    state, hard_ones = detector.snapshot(), np.flatnonzero(scores > hard).tolist()
    runs = []
    for n in range(2 * FORGERS):
        forger = Difficulty(Thresholds())
        for key, value in state.items():
            forger.load(key, value)
        mine = [hard_ones[(n * RUN + k) * 7 % len(hard_ones)] for k in range(RUN)]
        cases = [prompts.case(i, forged, f"p{n}" if n < FORGERS else f"new{n}", 1e6 + i) for i in mine]
        if took := until_told(forger, cases):
            runs.append(took)
    callers = sum(count >= TELLING for count in false.values())
    return Judged(
        np.array(clean), np.array(lowered), false.total() / len(clean), callers, found / len(lowered), runs
    )


def until_told(detector: Difficulty, cases: list[Case]) -> int | None:
    """How many of one principal's cases it took to an alert's number of findings."""
    findings = 0
    for n, case in enumerate(cases, 1):
        is_flagged = flagged(detector.score(case))
        detector.learn(case, is_flagged)
        findings += is_flagged
        if findings == TELLING:
            return n
    return None


def learners() -> dict[str, Callable[[], Any]]:
    """River's online regressions that could serve."""
    return {
        "LinearRegression, SGD 0.003": lambda: (
            preprocessing.StandardScaler() | linear_model.LinearRegression(optimizer=optim.SGD(0.003))
        ),
        "LinearRegression, AdaGrad 0.1": lambda: (
            preprocessing.StandardScaler() | linear_model.LinearRegression(optimizer=optim.AdaGrad(0.1))
        ),
        "PARegressor": lambda: preprocessing.StandardScaler() | linear_model.PARegressor(C=0.003, mode=2),
        "BayesianLinearRegression (shipped)": lambda: linear_model.BayesianLinearRegression(alpha=4, beta=1),
    }


def explained(prompts: Scored, make: Callable[[], Any]) -> float:
    """Prequential R2 over the last third of the prompts: score first, then learn."""
    from scipy.stats import norm

    n = len(prompts.texts)
    targets = norm.ppf((np.argsort(np.argsort(prompts.scores)) + 0.5) / n)
    model, errors = make(), []
    for text, vector, y in zip(prompts.texts, prompts.vectors, targets.tolist(), strict=True):
        x = features(vector, len(text), len(text) // 4, 1)
        row = dict(enumerate((x if x is not None else np.zeros(FEATURES)).tolist()))
        errors.append(y - model.predict_one(row))
        model.learn_one(row, y)
    last = slice(2 * n // 3, None)
    return 1 - float(np.var(errors[last]) / np.var(targets[last]))


@click.command()
@click.option("--prompts", "most", default=16_000, show_default=True, help="Prompts in all.")
@click.option("--seed", default=2, show_default=True, help="The shipped threshold was set on seed 1.")
@click.option("--kind", "kinds", multiple=True, default=("words", "chars", "static"), help="Routers.")
@click.option("--learners/--no-learners", "compare", default=True, help="Compare River's regressions too.")
def main(most: int, seed: int, kinds: tuple[Kind, ...], compare: bool) -> None:
    """Print the tables of docs/detectors/difficulty.md."""
    rng = np.random.default_rng(seed)
    titles = ["router", "flipped", "false as shipped", "honest callers told of"]
    titles += [f"forgers told of within {RUN} scores", "forged score found alone"]
    titles += [f"found at {rate:.2%} false" for rate in RATES]
    click.echo("| " + " | ".join(titles) + " |")
    click.echo("|" + "---|" * len(titles))
    for kind in kinds:
        prompts = scored(kind, most, seed)
        for noise, flips in NOISES:
            scores = prompts.noisy(noise, rng)
            told = judged(prompts, scores, float(np.quantile(scores, 0.01)))
            at = [float(np.mean(told.lowered < np.quantile(told.clean, rate))) for rate in RATES]
            run = f"{len(told.runs) / (2 * FORGERS):.2f}"
            run += f" in {statistics.median(told.runs):.0f}" if told.runs else ""
            row = [kind, flips, f"{told.false:.2%}", f"{told.callers} of {PRINCIPALS}", run, f"{told.found:.2f}"]
            click.echo("| " + " | ".join(row + [f"{share:.2f}" for share in at]) + " |")
        if compare:
            for name, make in learners().items():
                click.echo(f"  {kind}: {name} R2 {explained(prompts, make):.3f}")


if __name__ == "__main__":
    main()
