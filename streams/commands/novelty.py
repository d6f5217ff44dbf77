"""`pointsman novelty`: make the artefact of `detectors.novelty` anew, or fit it to a fleet's own prompts."""

import importlib
import json
from pathlib import Path
from typing import Any

import click

_PATH = click.Path(dir_okay=False, path_type=Path)


@click.group()
def command() -> None:
    """Unseen trigger text in one prompt: train the model, or fit it to a fleet."""


def _families(_context: click.Context, _parameter: click.Parameter, name: str) -> Any:
    """Attack families are no part of what is installed for judging: they are named, `module:function`."""
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise click.BadParameter(f"{name}: {error}") from error


@command.command()
@click.option("--corpus", "folders", type=click.Path(exists=True, file_okay=False, path_type=Path), multiple=True,
              help="Folder of natural text beside the machine's own; its name is the kind of text.")  # fmt: skip
@click.option("--prompts", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="JSONL rows `text`, `source`: benign prompts to learn from.")  # fmt: skip
@click.option(
    "--without", multiple=True, help="Source of --prompts to leave out, and what is copied from it, for evaluation."
)
@click.option("--attacks", "families", default="loadtests.attacks.text:families", show_default=True,
              callback=_families, help="Function that makes attack families of texts.")  # fmt: skip
@click.option("--out", type=_PATH, help="Default: the shipped artefact.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print all that the artefact says of itself.")
def train(
    folders: tuple[Path, ...], prompts: Path | None, without: tuple[str, ...], families: Any, out: Path | None,
    seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Train from natural text and synthetic attacks (about 15 minutes on one core; needs the extra `models`)."""
    from detectors.novelty import artefact
    from detectors.novelty.training.fit import fit_artefact, read_benign

    try:
        own = read_benign(prompts) if prompts else []
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    left_out = {f"own/{source}" for source in without}
    about = fit_artefact(
        out or artefact.PATH,
        folders,
        [document for document in own if document.group not in left_out],
        families,
        seed,
        kept_back=[document.text for document in own if document.group in left_out],
    )
    click.echo(json.dumps(about if as_json else {"held_back": about["held_back"]}))


@command.command()
@click.argument("benign", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=_PATH, required=True, help="Where to write the recalibrated artefact.")
@click.option("--json", "as_json", is_flag=True, help="Print the new scale.")
def fit(benign: Path, out: Path, as_json: bool) -> None:
    """Set the scale to BENIGN, a fleet's reviewed sample (JSONL rows `text`): scores become its quantiles."""
    from detectors.novelty.training.fit import read_benign, recalibrate

    try:
        texts = [document.text for document in read_benign(benign)]
        scale = recalibrate(out, texts)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps({"log_odds": scale.log_odds.tolist(), "decades": scale.decades.tolist()}))
    else:
        click.echo(f"{out}: scale of {len(texts)} prompts")
