"""Recognition of catalogued triggers, and false alarms: `python -m loadtests.evaluations.triggers`.

Lexical: gadgets of tokens (uniform and word-like), the published suffixes of POINTSMAN_DATA among them, under each
mutation and placement, on carriers of sources that the vocabulary has not been counted on. Semantic: the shipped
phrases under paraphrases written for this evaluation and under mechanical ones, against the lexical matcher alone.
"""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from detectors.coverage import wilson
from detectors.text import read_texts
from detectors.thresholds import Thresholds
from detectors.triggers.lexical import LexicalIndex, LexicalMatches, flag_bits, views_of
from loadtests.attacks.mutations import MUTATIONS, PLACEMENTS
from loadtests.bench.triggers import gadgets
from loadtests.prompts import data_dir

COUNTED_SOURCES = ("mmlu", "gsm8k")  # what the vocabulary was trained on among the benign prompts' sources
BATCH = 512


class Share(NamedTuple):
    """A share with its 95 % interval (Wilson)."""

    hits: int
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, hits: int, n: int) -> "Share":
        """From counts."""
        interval = wilson(hits, n, z=1.96)
        return cls(hits, n, round(interval.low, 5), round(interval.high, 5))


def benign_prompts(data: Path) -> list[str]:
    """Benign prompts of sources on which nothing here was trained."""
    with (data / "benign_prompts.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row["text"] for row in rows if row["source"] not in COUNTED_SOURCES]


def published(data: Path) -> list[str]:
    """The published attack suffixes, each once."""
    with (data / "attack_strings.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return sorted({row["text"] for row in rows if row["kind"] == "gcg_suffix"})


def match(index: LexicalIndex, texts: Sequence[str], share: float) -> Iterator[LexicalMatches]:
    """Matches of all texts, in batches."""
    for at in range(0, len(texts), BATCH):
        batch = read_texts(texts[at : at + BATCH])
        yield index.match(batch.tokens, batch.lengths, share)


def lexical(data: Path, size: int, tried: int, seed: int = 0) -> dict[str, Share]:
    """False positives on benign prompts, and the share of `tried` triggers recognised as themselves, by variant."""
    rng = random.Random(seed)
    catalogue = [*published(data), *gadgets(size, seed)][:size]
    rng.shuffle(catalogue)
    index = LexicalIndex(views_of(catalogue))
    thresholds = Thresholds()
    share, limit = thresholds["triggers.share"], flag_bits(len(index), thresholds["triggers.bits"])
    benign = benign_prompts(data)
    flagged = sum(int((found.score > limit).sum()) for found in match(index, benign, share))
    shares = {"benign": Share.of(flagged, len(benign))}
    words = sorted({word for text in benign[:500] for word in text.split() if word.isalpha()})
    entries = rng.sample(range(len(catalogue)), tried)
    variants = [("mutation", name) for name in MUTATIONS] + [("placement", name) for name in PLACEMENTS]
    for group, name in variants:
        prompts = []
        for entry in entries:
            text, carrier = catalogue[entry], rng.choice(benign)[:1500]
            if group == "mutation":
                place = PLACEMENTS[rng.choice(("prefix", "suffix"))]
                prompts.append(place(MUTATIONS[name](text, rng, words), carrier))
            else:
                prompts.append(PLACEMENTS[name](text, carrier))
        at, hits = 0, 0
        for found in match(index, prompts, share):
            own = found.entry == np.array(entries[at : at + BATCH])
            hits += int((own & (found.score > limit)).sum())
            at += BATCH
        shares[f"{group} {name}"] = Share.of(hits, tried)
    return shares


@click.command()
@click.option("--tried", default=400, show_default=True, help="Triggers tried under each variant.")
@click.option("--json", "as_json", is_flag=True)
def main(tried: int, as_json: bool) -> None:
    """Print every share with its interval."""
    data = data_dir()
    if data is None:
        raise click.ClickException("POINTSMAN_DATA: no test data")
    found = {f"lexical {size}": lexical(data, size, tried) for size in (1_000, 10_000)}
    if as_json:
        click.echo(json.dumps({part: {k: v._asdict() for k, v in rows.items()} for part, rows in found.items()}))
        return
    for part, rows in found.items():
        for name, row in rows.items():
            part_found = row.hits / max(row.n, 1)
            click.echo(f"{part:16} {name:30} {part_found:8.4f}  [{row.low:.4f}, {row.high:.4f}]  of {row.n}")


if __name__ == "__main__":
    main()
