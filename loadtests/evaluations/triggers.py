"""Known triggers, lexically: found under every mutation and placement, and what is flagged falsely.

Catalogues of 1,000 and 10,000 entries: gadgets of tokens (uniform and word-like), the published suffixes and the
published jailbreak templates of POINTSMAN_DATA. The carriers are of sources on which nothing was trained.
`python -m loadtests.evaluations --part triggers`.
"""

import json
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.corpus import benign_texts
from detectors.text import read_texts, tokenise
from detectors.thresholds import Thresholds
from detectors.triggers.lexical import LexicalIndex, flag_bits, units_of, views_of
from detectors.triggers.review import HIT_SHARE, REFUSE_BITS
from detectors.vocabulary import vocabulary
from loadtests.attacks.mutations import MUTATIONS, PLACEMENTS
from loadtests.bench.triggers import gadgets
from loadtests.evaluations.benign import held_back, many, prompts
from loadtests.evaluations.shares import Share, of_counts, over_triggers

SIZES = (1_000, 10_000)
USES = 2  # of each trigger under each variant, on different carriers
BATCH = 512
LONG = 400  # characters from which an entry is a template
_COUNTED = ("mmlu", "gsm8k")  # what the vocabulary was counted on among the benign prompts' sources


class Report(msgspec.Struct):
    """By size of the catalogue."""

    found: dict[int, dict[str, Share]]  # by mutation and placement
    long: dict[int, dict[str, Share]]  # the same of templates
    falsely: dict[int, Share]  # of benign texts


def published(data: Path, kind: str) -> list[str]:
    """The published attack strings of a kind, each once."""
    with (data / "attack_strings.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return sorted({row["text"] for row in rows if row["kind"] == kind})


def _approvable(texts: Sequence[str], reference: Sequence[str]) -> list[str]:
    """Those that a review would let pass (detectors/triggers/review.py): long enough, and in no benign text."""
    bits = vocabulary().bits
    told = [min((bits[np.unique(unit)].sum() for unit in units_of(row)), default=0) for row in tokenise(texts)]
    left = [text for text, least in zip(texts, told, strict=True) if least >= REFUSE_BITS]
    index, hit = LexicalIndex(views_of(left)), set[int]()
    for at in range(0, len(reference), BATCH):
        batch = read_texts(reference[at : at + BATCH])
        hit.update(index.match(batch.tokens, batch.lengths, HIT_SHARE, least_bits=0).entry.tolist())
    return [text for entry, text in enumerate(left) if entry not in hit]


def _scores(index: LexicalIndex, texts: Sequence[str], share: float) -> NDArray[np.float32]:
    parts = []
    for at in range(0, len(texts), BATCH):
        batch = read_texts(texts[at : at + BATCH])
        parts.append(index.match(batch.tokens, batch.lengths, share).score)
    return np.concatenate(parts)


def _variants(
    entries: Sequence[str], carriers: Sequence[str], words: Sequence[str], rng: random.Random
) -> Iterator[tuple[str, list[str]]]:
    """Every mutation at an end, then every placement of the unchanged trigger: `USES` prompts of each entry."""
    for name, mutate in MUTATIONS.items():
        ends = [PLACEMENTS["prefix"], PLACEMENTS["suffix"]]
        yield (
            name,
            [
                ends[use % 2](mutate(entry, rng, words), rng.choice(carriers))
                for entry in entries
                for use in range(USES)
            ],
        )
    for name, place in PLACEMENTS.items():
        yield name, [place(entry, rng.choice(carriers)) for entry in entries for _ in range(USES)]


def measure(data: Path, tried: int, benign: int, sizes: Sequence[int] = SIZES, seed: int = 0) -> Report:
    """Try `tried` short entries and a third as many templates; false positives on `benign` texts."""
    rng, thresholds = random.Random(seed), Thresholds()
    least_share = thresholds["triggers.share"]
    reference = list(benign_texts())  # a review's own
    suffixes = _approvable(published(data, "gcg_suffix"), reference)
    long_ones = [text for text in published(data, "jailbreak_template") if len(text) >= LONG]
    templates = _approvable(long_ones, reference)
    rng.shuffle(templates)
    templates = templates[: max(sizes) // 20]
    carriers = [row.text[:1500] for row in held_back(data)]
    words = sorted({word for text in carriers[:500] for word in text.split() if word.isalpha()})
    indexes, limits = dict[int, LexicalIndex](), dict[int, float]()
    report = Report({}, {}, {})
    for size in sizes:
        long = templates[: size // 20]
        short = [*suffixes, *gadgets(size, seed)][: size - len(long)]
        index = indexes[size] = LexicalIndex(views_of([*short, *long]))
        limit = limits[size] = flag_bits(len(index), thresholds["triggers.bits"])
        for pool, n, into in ((short, tried, report.found), (long, tried // 3, report.long)):
            entries = rng.sample(pool, min(n, len(pool)))
            trigger = np.repeat(np.arange(len(entries)), USES)
            into[size] = {
                name: over_triggers(_scores(index, texts, least_share) > limit, trigger, seed)
                for name, texts in _variants(entries, carriers, words, rng)
            }
    falsely, n = dict.fromkeys(sizes, 0), 0
    texts = iter([*(row.text for row in prompts(data) if row.source not in _COUNTED), *many(benign, seed)])
    while chunk := list(islice(texts, BATCH)):
        batch = read_texts(chunk)
        n += len(chunk)
        for size, index in indexes.items():
            falsely[size] += int((index.match(batch.tokens, batch.lengths, least_share).score > limits[size]).sum())
    report.falsely = {size: of_counts(hits, n) for size, hits in falsely.items()}
    return report
