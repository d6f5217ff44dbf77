"""Benign texts: those of sources that nothing was trained on, and very many for rates of one in 100,000."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from detectors.corpus import natural_texts

# Sources of the benign prompts that `pointsman novelty train` is told to leave out (--without).
HELD_BACK = ("agieval", "arena_hard_v0.1", "headlines", "humaneval", "llmrouter_agentverse-logicgrid",
             "llmrouter_commongen", "llmrouter_gpqa", "mbpp_plus", "mitre_frr", "mt_bench", "self_instruct_seed",
             "xstest_safe")  # fmt: skip


class Benign(NamedTuple):
    """A benign prompt; `borderline` ones look dangerous and are not."""

    source: str
    text: str
    borderline: bool


def prompts(data: Path) -> list[Benign]:
    """All benign prompts of POINTSMAN_DATA."""
    with (data / "benign_prompts.jsonl").open(encoding="utf-8") as file:
        rows = map(json.loads, file)
        return [Benign(row["source"], row["text"], bool(row.get("borderline"))) for row in rows]


def held_back(data: Path) -> list[Benign]:
    """Those of sources that nothing was trained on."""
    return [row for row in prompts(data) if row.source in HELD_BACK]


def many(n: int, seed: int = 0) -> Iterator[str]:
    """Cut `n` pieces of prompt-like length, or as many as there are, of natural text and code of this machine."""
    rng = random.Random(seed)
    left = n
    for _, text in natural_texts(seed):
        at = 0
        while at < len(text) - 20 and left:
            size = min(900, max(20, int(rng.lognormvariate(4.5, 0.6))))
            yield text[at : at + size]
            at, left = at + size, left - 1
        if not left:
            return
