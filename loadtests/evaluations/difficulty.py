"""How `difficulty` does on real routers: `python -m loadtests.evaluations.difficulty` prints its page's tables.

Prompts are the benign ones and those of the routing sets, in a seeded order, from 200 principals. After a warm-up
each is judged as it came, and again as if its score had been forged or its text had a downward gadget.
"""

from collections.abc import Callable
from typing import Any

import click
import numpy as np
from river import linear_model, optim, preprocessing

from detectors.difficulty import Difficulty
from detectors.difficulty.model import FEATURES, features
from detectors.thresholds import Thresholds
from loadtests.evaluations.scored import NOISES, Floats, Scored, flagged, scored
from loadtests.router import Kind

WARM = 4_000
PRINCIPALS = 200
RATES = (0.001, 0.0003)


def judged(prompts: Scored, scores: Floats, forged: float) -> tuple[Floats, Floats, float, float]:
    """Residuals after the warm-up, honest ones and of hard prompts with a `forged` score; shares flagged."""
    detector = Difficulty(Thresholds())
    clean, lowered, false, found = [], [], 0, 0
    hard = float(np.quantile(scores, 0.6))
    for i, score in enumerate(scores.tolist()):
        case = prompts.case(i, score, f"p{i % PRINCIPALS}", float(i))
        answer, residual = detector.score(case), detector.residual(case)
        if i >= WARM and residual is not None:
            clean.append(residual)
            false += flagged(answer)
            if score > hard:
                forgery = prompts.case(i, forged, f"p{i % PRINCIPALS}", float(i))
                lowered.append(detector.residual(forgery) or 0.0)
                found += flagged(detector.score(forgery))
        detector.learn(case, flagged(answer))
    return np.array(clean), np.array(lowered), false / len(clean), found / len(lowered)


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
    titles = ["router", "decisions flipped", "false as shipped", "forged score found as shipped"]
    titles += [f"found at {rate:.2%} false" for rate in RATES]
    click.echo("| " + " | ".join(titles) + " |")
    click.echo("|" + "---|" * len(titles))
    for kind in kinds:
        prompts = scored(kind, most, seed)
        for noise, flips in NOISES:
            scores = prompts.noisy(noise, rng)
            clean, lowered, false, found = judged(prompts, scores, float(np.quantile(scores, 0.01)))
            at = [float(np.mean(lowered < np.quantile(clean, rate))) for rate in RATES]
            click.echo(
                f"| {kind} | {flips} | {false:.2%} | {found:.2f} | " + " | ".join(f"{a:.2f}" for a in at) + " |"
            )
        if compare:
            for name, make in learners().items():
                click.echo(f"  {kind}: {name} R2 {explained(prompts, make):.3f}")


if __name__ == "__main__":
    main()
