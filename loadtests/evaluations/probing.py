"""How `probing` does: `python -m loadtests.evaluations.probing` prints its page's table.

Callers of a fleet ask as they do (templates, edits of one prompt, retries, conversations). An attacker is one of
them who also grows a trigger against a trained router (`detectors/triggers/grow.py`), every query of the climb a
request: of the gadget alone, or glued to a prompt, one after the other or among its ordinary requests.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from statistics import median
from typing import NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from detectors.contract import Case, PromptFacts
from detectors.probing import Probing, sketches
from detectors.text import read_texts
from detectors.thresholds import Thresholds
from detectors.triggers.grow import grow
from loadtests.fleet import Fleet
from loadtests.prompts import data_dir
from loadtests.router import DifficultyRouter
from schemas.events import Request
from schemas.verdicts import Reason

START = datetime(2026, 3, 2, tzinfo=UTC)
EVERY_S = 5.0


class Row(NamedTuple):
    """One kind of caller."""

    name: str
    flagged: int
    of: int
    median_requests: float  # until the first flag


def first_flag(texts: Sequence[str]) -> int | None:
    """Requests of one caller until it is flagged; None: never."""
    detector = Probing(Thresholds())
    for i, sketch in enumerate(sketches(read_texts(texts))):
        request = Request(
            event_id=str(i), event_time=START, request_id=str(i), tenant_id="t", principal_hash="p"
        )  # fmt: skip
        case = Case(time=i * EVERY_S, request=request, route=None, prompt=PromptFacts(sketch=sketch))
        answer = detector.score(case)
        if isinstance(answer, Reason):
            return i + 1
        detector.learn(case, flagged=False)
    return None


def climb(router: DifficultyRouter, seed: int) -> list[str]:
    """Every text that one climb has the router score."""
    asked: list[str] = []

    def score(texts: Sequence[str]) -> NDArray[np.float64]:
        asked.extend(texts)
        return np.asarray(router.score(list(texts)), np.float64)

    grow(score, "wordlike", seed=seed)
    return asked


def row(name: str, callers: Sequence[Sequence[str]]) -> Row:
    """Judge each caller alone."""
    firsts = [first for texts in callers if (first := first_flag(texts)) is not None]
    return Row(name, len(firsts), len(callers), median(firsts) if firsts else 0.0)


@click.command()
@click.option("--seed", default=1, show_default=True)
@click.option("--principals", default=300, show_default=True)
@click.option("--requests", default=600, show_default=True, help="Of each ordinary caller.")
@click.option("--climbs", default=40, show_default=True)
def main(seed: int, principals: int, requests: int, climbs: int) -> None:
    """Print the table."""
    fleet = Fleet(seed, data_dir(), principals=principals)
    usual = [[ask.text for ask in islice(fleet.habit(caller), requests)] for caller in fleet.principals]
    router = DifficultyRouter.load("words")
    grown = [climb(router, seed * 1000 + number) for number in range(climbs)]
    bodies = [body.text for body in fleet.bodies(fleet.rng, climbs)]
    before = [[f"{text} {body}" for text in asked] for asked, body in zip(grown, bodies, strict=True)]
    behind = [[f"{body} {text}" for text in asked] for asked, body in zip(grown, bodies, strict=True)]
    mixed = [list(chain(*zip(asked, usual[i], strict=False))) for i, asked in enumerate(grown)]
    rows = [
        row("ordinary callers", usual),
        row("climb, the gadget alone", grown),
        row("climb before a prompt", before),
        row("climb behind a prompt", behind),
        row("climb, every other request an ordinary one", mixed),
    ]
    click.echo("| caller | flagged | median requests until then |\n|---|---|---|")
    for found in rows:
        click.echo(f"| {found.name} | {found.flagged} of {found.of} | {found.median_requests:.0f} |")


if __name__ == "__main__":
    main()
