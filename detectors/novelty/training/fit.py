"""Makes novelty's artefact: split, language model, tagger, trees, scale. Each step has texts of its own."""

import json
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.novelty import artefact, ngrams, tokens
from detectors.novelty.features import classes
from detectors.novelty.model import Base, Model, Parts
from detectors.novelty.scale import Scale, fit_scale
from detectors.novelty.training.samples import Attack, Carriers, Sample, make
from detectors.novelty.training.tagging import ends, fit_tagger
from detectors.novelty.training.texts import Document, documents, without
from detectors.novelty.trees import Trees, from_lightgbm

Families = Callable[[Sequence[str]], Mapping[str, Attack]]

VERSION = "2"  # of what it makes: scores of one mean nothing in another
# Bytes of the tables of pairs, triples and skip pairs: with the rest at most 10 MB on disk.
TABLES = (4_600_000, 4_300_000, 1_400_000)
FOLDS = 4
_TOKEN_CHARS = 40_000_000  # of text that the vocabulary is learned from
_INTEGERS, _REALS = np.zeros(0, np.int32), np.zeros(0, np.float32)
_NO_TREES = Trees(_INTEGERS, np.zeros(0, np.int16), _REALS, _INTEGERS, _INTEGERS, _REALS)


class Split(NamedTuple):
    """Documents by use; no group of documents is in two of them."""

    tagged: list[Document]  # the tagger's samples
    weighed: list[Document]  # the trees' samples
    held: list[Document]  # the scale, and the figures while developing; the others are counted


class SplitAttacks(NamedTuple):
    """Attack families by use: of what is trained by fold, each over that fold's own documents."""

    tagged: Sequence[Mapping[str, Attack]]
    weighed: Sequence[Mapping[str, Attack]]
    held: Mapping[str, Attack]


class Language(NamedTuple):
    """Language models: of all that is counted, and for each fold of it one that has not seen that fold."""

    whole: Base
    without: tuple[Base, ...]  # FOLDS


class Sizes(NamedTuple):
    """How many samples each step has."""

    tagged: int = 280_000
    weighed: int = 240_000
    held: int = 60_000
    epochs: float = 1.2


def fold_of(document: Document) -> int:
    """The fold that a document's group belongs to."""
    return zlib.crc32(b"fold " + document.group.encode("utf-8", "replace")) % FOLDS


def by_fold(found: Sequence[Document]) -> list[list[Document]]:
    """Documents parted into FOLDS."""
    folds: list[list[Document]] = [[] for _ in range(FOLDS)]
    for document in found:
        folds[fold_of(document)].append(document)
    return folds


def split(found: Sequence[Document]) -> Split:
    """Part documents by a hash of their group.

    Trees must meet the tagger as a stranger to their documents, or they trust it more than it deserves.
    """
    parts = Split([], [], [])
    for document in found:
        place = zlib.crc32(document.group.encode("utf-8", "replace")) / 2**32
        own = document.kind == "own"
        if place > 0.93 and not own:
            parts.held.append(document)
        elif place < 0.55:
            parts.tagged.append(document)
        else:
            parts.weighed.append(document)
    return parts


def split_attacks(families: Families, parts: Split, seed: int, texts: int = 12_000) -> SplitAttacks:
    """Families over each part's texts, and there over each fold's.

    What attacks are cut from is drawn as carriers are: pieces of prompts are to be as odd as pieces of manuals.
    """

    def over(found: Sequence[Document]) -> Mapping[str, Attack]:
        carriers = Carriers(found, random.Random(seed))
        return families([carriers.passage() for _ in range(texts)] if found else [])

    tagged, weighed = ([over(fold) for fold in by_fold(part)] for part in (parts.tagged, parts.weighed))
    return SplitAttacks(tagged, weighed, over(parts.held))


def learn_language(counted: Sequence[Document], seed: int, tables: tuple[int, int, int] = TABLES) -> Language:
    """Vocabulary, n-gram tables and token classes of natural texts; prompts of one's own are not counted.

    A text that was counted looks more natural than one that was not. What is trained on top must not see that,
    so that each fold's texts are looked at by counts of the other folds: then all text can be counted, and all of
    it can be trained on.
    """
    folds = [[document.text for document in fold if document.kind != "own"] for fold in by_fold(counted)]
    texts = [text for fold in folds for text in fold]
    random.Random(seed).shuffle(texts)
    at = int(np.searchsorted(np.cumsum([len(text) for text in texts]), _TOKEN_CHARS)) + 1
    learned = tokens.train([tokens.normalise(text) for text in texts[:at]])
    encoded = [tokens.Tokeniser(learned).encode(fold) for fold in folds]

    def counts(chosen: Sequence[int]) -> ngrams.Ngrams:
        flat = np.concatenate([encoded[k][0] for k in chosen])
        lengths = np.concatenate([np.diff(encoded[k][1]) for k in chosen])
        return ngrams.count(flat, np.concatenate([[0], np.cumsum(lengths)]), learned, tables)

    whole = counts(range(FOLDS))
    made = classes(learned, whole.log_p)
    without = (counts([k for k in range(FOLDS) if k != left]) for left in range(FOLDS))
    return Language(Base(learned, whole, made), tuple(Base(learned, grams, made) for grams in without))


def _boost(features: NDArray[np.float32], attack: NDArray[np.bool_], seed: int) -> Trees:
    import lightgbm

    booster = lightgbm.LGBMClassifier(
        n_estimators=220, num_leaves=31, learning_rate=0.08, min_child_samples=200, colsample_bytree=0.12,
        reg_lambda=20, subsample=0.7, subsample_freq=1, n_jobs=1, verbose=-1, random_state=seed, deterministic=True,
    ).fit(features, attack)  # fmt: skip
    return from_lightgbm(booster.booster_.dump_model())


def _samples(
    n: int, found: Sequence[Document], attacks: Sequence[Mapping[str, Attack]], seed: int
) -> list[list[Sample]]:
    return [
        make(n // FOLDS, fold, made, seed + 10 * k) if fold else []
        for k, (fold, made) in enumerate(zip(by_fold(found), attacks, strict=True))
    ]


def fit_model(language: Language, parts: Split, attacks: SplitAttacks, sizes: Sizes, seed: int) -> Model:
    """Tagger and trees, each on attacks over its own documents, looked at by counts that lack them."""
    samples = _samples(sizes.tagged, parts.tagged, attacks.tagged, seed)
    tagger = fit_tagger(list(zip(language.without, samples, strict=True)), sizes.epochs, seed)
    samples = _samples(sizes.weighed, parts.weighed, attacks.weighed, seed + 1)
    features = np.concatenate([
        Model(Parts(base, tagger, _NO_TREES)).features(*ends([sample.text for sample in fold]))
        for base, fold in zip(language.without, samples, strict=True)
    ])  # fmt: skip
    attack = np.array([sample.end > 0 for fold in samples for sample in fold])
    return Model(Parts(language.whole, tagger, _boost(features, attack, seed)))


def judge(model: Model, texts: Sequence[str]) -> NDArray[np.float32]:
    """Log odds of whole texts."""
    return model.log_odds(*ends(texts))


def report(model: Model, samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Recall by family at 0.1 % and 1 % false positives of the samples' benign ones."""
    scores = judge(model, [sample.text for sample in samples])
    names = np.array([sample.family for sample in samples])
    at = {str(rate): np.quantile(scores[names == "benign"], 1 - rate) for rate in (0.001, 0.01)}
    return {
        str(name): {rate: round(float((scores[names == name] > level).mean()), 4) for rate, level in at.items()}
        for name in sorted(set(names) - {"benign"})
    }


def fit_artefact(
    path: Path, folders: Sequence[Path], own: Sequence[Document], families: Families, seed: int = 0,
    sizes: Sizes = Sizes(), kept_back: Sequence[str] = (),  # noqa: B008 - immutable
) -> dict[str, Any]:  # fmt: skip
    """Make an artefact of natural text and synthetic attacks, write it to `path`; how, and what it reached.

    Args:
        path: of the artefact.
        folders: corpora beside the machine's own text (`texts.read_folder`).
        own: prompts in the style of what will be judged.
        families: makes attack families of natural texts.
        seed: of everything drawn.
        sizes: of the samples.
        kept_back: texts of the evaluation: what shares a passage with one of them is not learned from.
    """
    parts = split(without([*documents(folders, seed), *own], kept_back))
    counted = [*parts.tagged, *parts.weighed]
    language = learn_language(counted, seed)
    attacks = split_attacks(families, parts, seed)
    model = fit_model(language, parts, attacks, sizes, seed)
    held = make(sizes.held, parts.held, attacks.held, seed + 2, benign_share=0.75)
    scale = fit_scale(judge(model, [sample.text for sample in held if sample.end == 0]))
    by_kind: dict[str, int] = {}
    for document in counted:
        if document.kind == "own":
            continue
        by_kind[document.kind] = by_kind.get(document.kind, 0) + len(document.text)
    about = {
        "version": VERSION,
        "seed": seed,
        "sizes": sizes._asdict(),
        "counted_characters": by_kind,
        "held_back": report(model, held),
    }
    artefact.save(path, model.parts, scale, about)
    return about


def recalibrate(path: Path, texts: Sequence[str], onto: Path = artefact.PATH) -> Scale:
    """Write the model at `onto` to `path` with the scale of a fleet's own benign prompts."""
    model, _, about = artefact.load(onto)
    scale = fit_scale(judge(model, texts))
    artefact.save(
        path, model.parts, scale, {**about, "version": f"{about['version']}-own", "calibrated_on": len(texts)}
    )
    return scale


def read_benign(path: Path) -> list[Document]:
    """Prompts of a JSONL file with `text` and, where known, `source`: prompts of one source are one group.

    Raises:
        ValueError: a line that is not such a row, by number.
    """
    found = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                text = row["text"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path.name}, line {number}: not a JSON object with a `text`") from error
            if not isinstance(text, str):
                raise ValueError(f"{path.name}, line {number}: `text` is not a string")
            found.append(Document("own", f"own/{row.get('source', '')}", text))
    return found
