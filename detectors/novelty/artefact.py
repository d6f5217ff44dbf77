"""Novelty's artefact: one file of plain arrays, no pickle. `pointsman novelty train` makes it anew."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from detectors.novelty.model import Base, Model, Parts
from detectors.novelty.ngrams import Ngrams
from detectors.novelty.scale import Scale
from detectors.novelty.tagger import Weights
from detectors.novelty.trees import Trees

PATH = Path(__file__).parents[1] / "artefacts" / "novelty.npz"


def _named(group: str, arrays: dict[str, Any]) -> dict[str, Any]:
    return {f"{group}.{name}": array for name, array in arrays.items()}


def _group(arrays: dict[str, Any], group: str) -> dict[str, Any]:
    return {name.removeprefix(f"{group}."): array for name, array in arrays.items() if name.startswith(f"{group}.")}


def save(path: Path, parts: Parts, scale: Scale, about: dict[str, Any]) -> None:
    """Write a model; `about` (how it was made: JSON) comes back from `load`, with the version."""
    arrays = {
        **_named("grams", parts.base.grams._asdict()),
        **_named("tagger", parts.tagger._asdict()),
        **_named("trees", parts.trees._asdict()),
        **_named("scale", scale._asdict()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        token_bytes=np.frombuffer(b"".join(parts.base.tokens), np.uint8),
        token_lengths=np.array([len(token) for token in parts.base.tokens], np.uint8),
        classes=parts.base.classes,
        about=np.frombuffer(json.dumps(about).encode(), np.uint8),
        **arrays,
    )


@cache
def load(path: Path = PATH) -> tuple[Model, Scale, dict[str, Any]]:
    """Read a model, its scale, and how it was made; once a process."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    raw, ends = arrays["token_bytes"].tobytes(), np.cumsum(arrays["token_lengths"], dtype=np.int64).tolist()
    tokens = [raw[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
    parts = Parts(
        Base(tokens, Ngrams(**_group(arrays, "grams")), arrays["classes"]),
        Weights(**_group(arrays, "tagger")),
        Trees(**_group(arrays, "trees")),
    )
    return Model(parts), Scale(**_group(arrays, "scale")), json.loads(arrays["about"].tobytes())
