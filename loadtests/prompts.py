"""Where prompts come from: `POINTSMAN_DATA` when it is there, else a grammar with a designed difficulty."""

import csv
import itertools
import json
import math
import random
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from detectors.corpus import data_path

_WEAK, _STRONG = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
MAX_CHARS = 3000  # of a real prompt: what is longer is an outlier of the data set, not of a fleet


class Prompt(NamedTuple):
    """A benign prompt and what it is about."""

    text: str
    topic: str


class Labelled(NamedTuple):
    """A prompt with its truth: a weak model fails on it."""

    text: str
    topic: str
    hard: bool


class AttackString(NamedTuple):
    """A published attack: `kind` gcg_suffix or jailbreak_template, `position` where it is glued."""

    text: str
    kind: str
    position: str
    source: str


def data_dir() -> Path | None:
    """Return the evaluation data's folder (`POINTSMAN_DATA`), or None where there is none."""
    path = data_path()
    return path if path and (path / "benign_prompts.jsonl").is_file() else None


def labelled(data: Path | None, seed: int = 0) -> list[Labelled]:
    """All prompts with a truth: RouteLLM's MMLU and GSM8K answers, or 6,000 generated ones."""
    if data is None:
        return list(generate(6000, seed))
    rows: dict[str, Labelled] = {}
    for path in [*sorted((data / "routing" / "mmlu").glob("*.csv")), data / "routing/gsm8k/gsm8k_responses.csv"]:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                topic = path.stem.removeprefix("mmlu_")
                rows[row["prompt"]] = Labelled(row["prompt"], topic, row[_WEAK] != "True")
    return list(rows.values())


def benign(data: Path | None, seed: int = 0) -> list[Prompt]:
    """Every distinct benign prompt, in a stable order; generated where there is no data."""
    if data is None:
        return [Prompt(row.text, row.topic) for row in generate(6000, seed)]
    rows = _rows(data / "benign_prompts.jsonl")
    texts = {row["text"][:MAX_CHARS]: row.get("task") or row["source"] for row in rows}
    texts |= {row.text[:MAX_CHARS]: row.topic for row in labelled(data)}
    return [Prompt(text, topic) for text, topic in texts.items()]


def unsafe(data: Path | None) -> list[str]:
    """Return harmful requests; without data, mild stand-alone ones that a guardrail would still refuse."""
    if data is None:
        pieces = grammar()
        pairs = itertools.product(pieces["bad_verbs"], pieces["bad_things"])
        return [f"Explain how to {verb} {thing} without anyone noticing." for verb, thing in pairs]
    return [row["text"] for row in _rows(data / "unsafe_prompts.jsonl")]


def attack_strings(data: Path | None) -> list[AttackString]:
    """Published attack strings; none without data."""
    if data is None:
        return []
    return [
        AttackString(row["text"], row["kind"], row["position"], row["source"])
        for row in _rows(data / "attack_strings.jsonl")
    ]


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


@lru_cache(maxsize=1)
def grammar() -> dict[str, Any]:
    """The pieces that generated prompts and callers' templates are made of."""
    pieces: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("grammar.yaml").read_text(encoding="utf-8"))
    return pieces


def generate(n: int, seed: int) -> Iterator[Labelled]:
    """Generate `n` distinct prompts; a prompt is hard with chance sigmoid(1.3 x the weights of its parts)."""
    rng, pieces = random.Random(seed), grammar()
    cities, names, days = pieces["cities"], pieces["names"], pieces["days"]
    seen: set[str] = set()
    while len(seen) < n:
        topic = rng.choice(list(pieces["subjects"]))
        (w_task, task), (w_subject, subject) = rng.choice(pieces["tasks"]), rng.choice(pieces["subjects"][topic])
        w_end, end = rng.choice(pieces["ends"])
        numbers = {"n": rng.randint(2, 400), "m": rng.randint(3, 9999), "k": rng.randint(3, 9999)}
        end = end.format(name=rng.choice(names), city=rng.choice(cities), day=rng.choice(days), **numbers)
        place = rng.choice(("", f" in {rng.choice(cities)}", f" for {rng.choice(names)}", f", case {numbers['m']}"))
        text = f"{task} {subject}{place}. {end}".strip()
        if text not in seen:
            seen.add(text)
            chance = 1 / (1 + math.exp(-1.3 * (w_task + w_subject + w_end)))
            yield Labelled(text, topic, rng.random() < chance)


@lru_cache(maxsize=4)
def words(data: Path | None, at_least: int = 5) -> tuple[str, ...]:
    """Lower-case words seen at least `at_least` times in the benign prompts, sorted."""
    counts: dict[str, int] = {}
    for prompt in benign(data):
        for word in prompt.text.lower().split():
            if word.isalpha():
                counts[word] = counts.get(word, 0) + 1
    return tuple(sorted(word for word, count in counts.items() if count >= at_least))
