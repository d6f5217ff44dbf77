"""`make eval`: what is found and what is flagged falsely, on prompts and generators that training has not seen."""

import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import click

from detectors.panel import build_panel
from detectors.thresholds import Thresholds
from detectors.training import sentence_transformer_path
from detectors.triggers.transformer import Transformer
from loadtests.evaluations import novelty, page, report, semantic, triggers
from loadtests.prompts import data_dir
from loadtests.router import QUICK, Kind

PARTS = ("triggers", "semantic", "novelty", "speed", "streams")
# The stream detectors' own evaluations print their tables.
STREAMS = ("difficulty", "spend", "steering")


class Plan(NamedTuple):
    """How much is measured."""

    entries: int  # of the catalogue, tried under each mutation
    benign: int  # texts for rates of one in 100,000
    phrases: int
    benign_phrases: int
    transformer: bool
    each: int  # triggers of every router, direction and way to climb
    routers: tuple[Kind, ...]
    prompts: int  # whose CPU is measured


FULL = Plan(400, 300_000, 90, 100_000, True, 5, QUICK, 4_096)
SHORT = Plan(30, 2_000, 6, 500, False, 1, ("words",), 512)


def _stream(name: str) -> str:
    """What the evaluation of a stream detector prints."""
    command = [sys.executable, "-m", f"loadtests.evaluations.{name}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - our own modules


@click.command()
@click.option("--short", is_flag=True, help="A little of everything but streams, in less than a minute.")
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="Default: all.")
@click.option("--leave-out", "kinds", multiple=True, type=click.Choice([novelty.NOTHING, *novelty.KINDS]),
              help="Train novelty without this kind of attack and try it on that kind; minutes each.")  # fmt: skip
@click.option("--corpus", "corpora", type=click.Path(exists=True, file_okay=False, path_type=Path), multiple=True,
              help="For --leave-out: what `pointsman novelty train` was given.")  # fmt: skip
@click.option("--page", "only_page", is_flag=True, help="Only write docs/evaluation.md from the report.")
@click.option("--out", default=".eval", show_default=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--docs", default="docs", show_default=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--seed", default=1, show_default=True)
def main(
    short: bool, parts: Sequence[str], kinds: Sequence[str], corpora: tuple[Path, ...], only_page: bool,
    out: Path, docs: Path, seed: int,
) -> None:  # fmt: skip
    """Evaluate on POINTSMAN_DATA into OUT/report.json; --page makes docs/evaluation.md of it."""
    path = out / "report.json"
    if only_page:
        if not path.is_file():
            raise click.ClickException(f"{path} is not there: `make eval` writes it")
        page.write(report.read(path, short), docs)
        return
    data = data_dir()
    if data is None:
        raise click.ClickException("POINTSMAN_DATA has no prompts: nothing to evaluate on")
    plan = SHORT if short else FULL
    found = report.read(path, short)
    detectors = list(build_panel(Thresholds()).detectors)

    def do_triggers() -> None:
        found.triggers = triggers.measure(data, plan.entries, plan.benign, seed=seed)

    def do_semantic() -> None:
        second = Transformer(sentence_transformer_path()) if plan.transformer else None
        found.semantic = semantic.measure(data, plan.phrases, plan.benign_phrases, second, seed)

    @cache
    def made() -> list[novelty.Trigger]:
        return novelty.triggers_for(data, plan.each, plan.routers, random.Random(seed))

    def do_novelty() -> None:
        before = found.novelty.left_out if found.novelty else {}
        found.novelty = novelty.measure(data, detectors, made(), seed)
        found.novelty.left_out = before

    def do_speed() -> None:
        found.speed = report.speed(detectors, plan.prompts)

    def do_streams() -> None:
        for name in STREAMS:
            found.streams[name] = _stream(name)
            report.write(found, path)

    run: dict[str, Callable[[], None]] = {
        "triggers": do_triggers, "semantic": do_semantic, "novelty": do_novelty, "speed": do_speed,
        "streams": do_streams,
    }  # fmt: skip
    for name in parts or ([] if kinds else [part for part in PARTS if not (short and part == "streams")]):
        begun = time.monotonic()
        run[name]()
        report.write(found, path)
        click.echo(f"{name}: {time.monotonic() - begun:.0f} s", err=True)
    if kinds:
        if found.novelty is None:
            raise click.ClickException("--leave-out adds to the part `novelty`, which the report does not have")
        for kind, rows in novelty.left_out(data, corpora, made(), kinds, seed):
            found.novelty.left_out[kind] = rows
            report.write(found, path)
            click.echo(f"without {kind}", err=True)
    click.echo(page.summary(found))
    click.echo(f"written to {path}")


if __name__ == "__main__":
    main()
