"""How `steering` does on real routers: `python -m loadtests.evaluations.steering` prints its page's table.

`Difficulty` learns a router from a fleet's prompts. Then other principals send prompts of one to three topics, as
templates do, each score with fresh routing noise. A steered one is clean at first; after that a share of its
requests has its score moved as a grown gadget moves it. With pairs, the gateway asks the router again without a
part of some prompts, or of all: without the gadget where there is one.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import click
import numpy as np
import numpy.typing as npt

from detectors.difficulty import Difficulty
from detectors.steering import Steering
from detectors.thresholds import Thresholds
from loadtests.evaluations.scored import NOISES, Floats, Scored, flagged, scored
from loadtests.router import Kind
from schemas.events import CounterfactualScore

CLEAN = 60  # requests before a steered principal begins
REQUESTS = 240
SHIFT = 1.6  # normal deviates: what moves 95 % of prompts over the median
PAIRS = {"residual": 0.0, "and pairs of 2 %": 0.02, "and pairs of all": 1.0}  # of requests
PART = 0.3  # sd of what an ordinary part of a prompt does to its score


class Scale:
    """Deviates of a noisy router to its scores and back."""

    def __init__(self, scores: Floats, noise: float) -> None:
        from scipy.stats import norm

        self.noise, self._sorted, self._norm = noise, np.sort(scores), norm
        self.deviates: Floats = norm.ppf((np.argsort(np.argsort(scores)) + 0.5) / len(scores))

    def scores(self, deviates: Floats, rng: np.random.Generator) -> Floats:
        """What the router says at these deviates, with fresh noise."""
        noisy = deviates + self.noise * rng.standard_normal(len(deviates))
        shares = self._norm.cdf(noisy / np.sqrt(1 + self.noise**2))
        said: Floats = np.quantile(self._sorted, shares)
        return said


class Found(NamedTuple):
    """How many principals were flagged, of how many, and the median of requests since they began."""

    flagged: int
    of: int
    median: float


def learnt(prompts: Scored, scale: Scale, rng: np.random.Generator) -> Difficulty:
    """A `Difficulty` that knows the router."""
    detector = Difficulty(Thresholds())
    for i, score in enumerate(scale.scores(scale.deviates, rng).tolist()):
        detector.learn(prompts.case(i, score, f"fleet{i % 200}", float(i)), flagged=False)
    return detector


def users(prompts: Scored, n: int, rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    """The prompts of `n` principals, each of one to three topics."""
    topics = defaultdict(list)
    for i, topic in enumerate(prompts.topics):
        topics[topic].append(i)
    names = sorted(topics)
    out = []
    for _ in range(n):
        chosen = rng.choice(len(names), rng.integers(1, 4), replace=False)
        pool = np.concatenate([topics[names[t]] for t in chosen])
        out.append(rng.choice(pool, REQUESTS))
    return out


def watch(
    prompts: Scored, scale: Scale, difficulty: Difficulty, asked: Sequence[npt.NDArray[np.int64]], push: float,
    share: float, pairs: float, rng: np.random.Generator,
) -> Found:  # fmt: skip
    """Play all principals, in turns; from request CLEAN on, a `share` of each one's requests is pushed."""
    detector = Steering(Thresholds(), difficulty.residual)
    first: dict[int, int] = {}
    turns = np.array(asked).T
    for n, row in enumerate(turns):
        hit = (rng.random(len(row)) < share) & (n >= CLEAN)
        base = scale.deviates[row]
        said = scale.scores(base + push * hit, rng)
        paired = rng.random(len(row)) < pairs
        without = scale.scores(base + PART * rng.standard_normal(len(row)) * ~hit, rng)
        for who, i in enumerate(row.tolist()):
            if who in first:
                continue
            case = prompts.case(i, float(said[who]), f"p{who}", float(n))
            if paired[who] and case.route is not None:
                other = CounterfactualScore(ablation="head", tokens=10, difficulty_score=float(without[who]))
                case.route.counterfactual_scores = [other]
            answer = detector.score(case)
            if flagged(answer):
                first[who] = n + 1 - CLEAN
            detector.learn(case, flagged(answer))
    after = [took for took in first.values() if took > 0] if push else list(first.values())
    return Found(len(after), len(asked), float(np.median(after)) if after else float("nan"))


@click.command()
@click.option("--prompts", "most", default=12_000, show_default=True, help="Prompts in all.")
@click.option("--honest", default=1000, show_default=True, help="Honest principals.")
@click.option("--steered", default=200, show_default=True, help="Steered principals for each cell.")
@click.option("--seed", default=2, show_default=True, help="The shipped thresholds were set on seed 1.")
@click.option("--kind", "kinds", multiple=True, default=("words", "static"), help="Routers.")
def main(most: int, honest: int, steered: int, seed: int, kinds: tuple[Kind, ...]) -> None:
    """Print the table of docs/detectors/steering.md."""
    titles = ("router", "flipped", "evidence", "false", "up, all", "down, all", "up, 30 %")
    click.echo("| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
    for kind in kinds:
        prompts = scored(kind, most, seed)
        for noise, flips in NOISES:
            rng = np.random.default_rng(seed)
            scale = Scale(prompts.scores, noise)
            difficulty = learnt(prompts, scale, rng)
            many, few = users(prompts, honest, rng), users(prompts, steered, rng)
            for label, pairs in PAIRS.items():
                false = watch(prompts, scale, difficulty, many, 0.0, 0.0, pairs, rng)
                cells = [f"{false.flagged} of {false.of}"]
                for push, share in ((SHIFT, 1.0), (-SHIFT, 1.0), (SHIFT, 0.3)):
                    found = watch(prompts, scale, difficulty, few, push, share, pairs, rng)
                    cells.append(f"{found.flagged / found.of:.2f} in {found.median:.0f}")
                click.echo(f"| {kind} | {flips} | {label} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
