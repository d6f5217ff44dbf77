"""Fluent triggers under paraphrase: lexical matcher, static embedding, and the sentence transformer after it.

Entries are phrases of a few intents (loadtests/attacks/phrases.py), used on carriers of sources on which nothing
was trained; every rate of false positives is of the same benign texts.
`python -m loadtests.evaluations --part semantic`.
"""

import random
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.embedding import static_embedding
from detectors.spans import character_span
from detectors.text import PromptBatch, read_texts, tokenise
from detectors.thresholds import Thresholds
from detectors.triggers.detector import spanned
from detectors.triggers.lexical import LexicalIndex, flag_bits, views_of
from detectors.triggers.semantic import SemanticIndex
from detectors.triggers.transformer import SecondStage
from loadtests.attacks.mutations import PLACEMENTS
from loadtests.attacks.phrases import PARAPHRASES, Fluent
from loadtests.evaluations.benign import held_back, many, prompts
from loadtests.evaluations.shares import Share, of_counts, over_triggers

USES = 4
BATCH = 512
RATE = 1e-4  # of false positives, at which each is compared
GATE_RATE = 3e-3  # of benign texts that may go on to the transformer


class Report(msgspec.Struct):
    """By paraphrase. `gate` and `levels` are cosines, or lexical scores over the threshold."""

    shipped: dict[str, Share]  # lexical or static, at the shipped thresholds
    falsely: Share
    at_rate: dict[str, dict[str, Share]]  # by stage, at `RATE` false positives
    levels: dict[str, float]
    entries: int
    benign: int


class _Stages:
    """One catalogue, seen by each matcher."""

    def __init__(self, entries: list[str], second: SecondStage | None) -> None:
        self._entries, self._second = entries, second
        self._thresholds = Thresholds()
        self._lexical = LexicalIndex(views_of(entries))
        self._limit = flag_bits(len(self._lexical), self._thresholds["triggers.bits"])
        self._semantic = SemanticIndex(static_embedding(), tokenise(entries))
        self.gate = 2.0  # static cosine from which the transformer is asked

    def scores(self, texts: list[str]) -> NDArray[np.float64]:
        """(n, 3): lexical score over its threshold, static cosine, transformer's cosine (0 below the gate)."""
        return np.concatenate([self._batch(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)])

    def _batch(self, texts: list[str]) -> NDArray[np.float64]:
        batch = read_texts(texts)
        lexical = self._lexical.match(batch.tokens, batch.lengths, self._thresholds["triggers.share"])
        static = self._semantic.match(batch)
        deep = np.zeros(len(texts))
        near = np.flatnonzero(static.cosine >= self.gate).tolist()
        if self._second and near:
            pairs = [
                (_stretch(batch, i, int(static.begin[i]), int(static.end[i])), self._entries[static.entry[i]])
                for i in near
            ]
            deep[near] = self._second.cosines(pairs)
        return np.stack([lexical.score / self._limit, static.cosine, deep], axis=1)

    def flagged(self, scores: NDArray[np.float64]) -> NDArray[np.bool_]:
        """As shipped: the transformer is off."""
        return np.asarray((scores[:, 0] > 1) | (scores[:, 1] > self._thresholds["triggers.cosine"]))


def _stretch(batch: PromptBatch, i: int, begin: int, end: int) -> str:
    return spanned(batch, i, character_span(batch, i, begin, end))


def measure(data: Path, n: int, benign: int, second: SecondStage | None, seed: int = 0) -> Report:
    """Try `n` phrases, two thirds of them upwards, on `USES` carriers under each paraphrase."""
    rng = random.Random(seed)
    phrases = [Fluent(rng, "up" if number % 3 else "down") for number in range(n)]
    stages = _Stages([phrase.text for phrase in phrases], second)
    carriers = [row.text[:1500] for row in held_back(data)]
    ordinary = [*(row.text for row in prompts(data)), *islice(many(benign, seed), benign)]
    base = stages.scores(ordinary)
    stages.gate = float(np.quantile(base[:, 1], 1 - GATE_RATE))
    candidates = np.flatnonzero(base[:, 1] >= stages.gate)
    base[candidates, 2] = stages.scores([ordinary[i] for i in candidates])[:, 2]
    columns = {"lexical": base[:, 0], "static": base[:, 1]}
    if second:
        columns["transformer"] = base[:, 2]
    levels = {name: float(np.quantile(column, 1 - RATE, method="higher")) for name, column in columns.items()}
    levels["lexical"] = max(levels["lexical"], 0.75)  # below it the detector keeps no score
    report = Report(
        {}, of_counts(int(stages.flagged(base).sum()), len(base)), {name: {} for name in levels}, levels,
        n, len(base),
    )  # fmt: skip
    trigger = np.repeat(np.arange(n), USES)
    ends = [PLACEMENTS["prefix"], PLACEMENTS["suffix"]]
    for kind, paraphrase in PARAPHRASES.items():
        texts = [
            ends[use % 2](paraphrase(phrase, rng), rng.choice(carriers))
            for phrase in phrases
            for use in range(USES)
        ]
        scores = stages.scores(texts)
        report.shipped[kind] = over_triggers(stages.flagged(scores), trigger, seed)
        lexical = scores[:, 0] > levels["lexical"]  # falsely next to never: it costs the others nothing
        for place, name in enumerate(levels):
            found = lexical | (scores[:, place] > levels[name])
            report.at_rate[name][kind] = over_triggers(found, trigger, seed)
    return report
