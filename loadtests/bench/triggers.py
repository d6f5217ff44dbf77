"""CPU a prompt of reading it and of matching it against the catalogue: `python -m loadtests.bench.triggers`."""

import json
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from statistics import median

import click
import numpy as np
import tiktoken

from detectors.catalogue import Catalogue, records_of
from detectors.corpus import benign_texts
from detectors.embedding import static_embedding
from detectors.folding import fold
from detectors.text import PromptBatch, read_texts, tokenise
from detectors.thresholds import Thresholds
from detectors.triggers.detector import TriggerDetector
from detectors.triggers.grow import Sampling, token_pool
from detectors.triggers.lexical import LexicalIndex, views_of
from detectors.triggers.semantic import SemanticIndex
from detectors.vocabulary import PATTERN, vocabulary
from schemas.triggers import Trigger

BATCH = 256
REPEATS = 5


def gadgets(count: int, seed: int = 0) -> list[str]:
    """Ungrown gadgets of ten tokens, half uniform, half of word-like tokens: what an index of grown ones costs."""
    rng = np.random.default_rng(seed)
    found: list[str] = []
    samplings: tuple[Sampling, ...] = ("uniform", "wordlike")
    for sampling in samplings:
        strings, chances = token_pool(sampling)
        picked = rng.choice(len(strings), (count // 2, 10), p=chances)
        found += [" ".join(strings[token] for token in row) for row in picked.tolist()]
    random.Random(seed).shuffle(found)
    return found


def catalogue(texts: Sequence[str]) -> Catalogue:
    """Texts as approved lexical entries."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return records_of(
        Trigger(trigger_id=f"t{i}", version=1, text=text, kind="lexical", review="approved", updated_at=now)
        for i, text in enumerate(texts)
    ).catalogue()


def microseconds(work: Callable[[], object], prompts: int) -> float:
    """Median CPU time a prompt over `REPEATS` runs."""
    taken = []
    for _ in range(REPEATS):
        begun = time.process_time()
        work()
        taken.append((time.process_time() - begun) / prompts * 1e6)
    return round(median(taken), 2)


def prompts_of(chars: int, count: int) -> list[str]:
    """Benign texts of `chars` characters: longer ones cut, shorter ones joined, and all of them again and again."""
    joined = "\n".join(benign_texts())
    twice = joined * (chars // len(joined) + 2)
    starts = [at % len(joined) for at in range(0, chars * count, chars)]
    return [twice[start : start + chars] for start in starts]  # a slice to the end would be copied each time


def tokenisers(texts: Sequence[str]) -> dict[str, float]:
    """Ours and the library's that it stands in for, on the same folded texts."""
    pairs = vocabulary().pairs
    ranks = {token: rank for rank, token in enumerate(pairs.tokens)}
    library = tiktoken.Encoding("vocabulary", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    folded = [fold(text) for text in texts]
    cuts = [folded[at : at + BATCH] for at in range(0, len(folded), BATCH)]
    return {
        "bytepairs_us": microseconds(lambda: [pairs.encode(cut) for cut in cuts], len(texts)),
        "tiktoken_us": microseconds(lambda: [library.encode_ordinary(text) for text in folded], len(texts)),
    }


@click.command()
@click.option("--chars", default=400, show_default=True, help="Characters a prompt.")
@click.option("--prompts", default=4096, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(chars: int, prompts: int, as_json: bool) -> None:
    """Measure in batches of 256, one thread."""
    texts = prompts_of(chars, prompts)
    cuts = [texts[at : at + BATCH] for at in range(0, len(texts), BATCH)]
    batches: list[PromptBatch] = [read_texts(cut) for cut in cuts]
    embedding = static_embedding()
    found: dict[str, float] = {
        "prompts": len(texts),
        "read_us": microseconds(lambda: [read_texts(cut) for cut in cuts], len(texts)),
        **tokenisers(texts),
        "vectors_us": microseconds(lambda: [embedding.vectors(batch) for batch in batches], len(texts)),
    }
    for size in (1_000, 10_000, 100_000):
        strings = gadgets(size)
        begun = time.perf_counter()
        index = LexicalIndex(views_of(strings))
        found[f"build_{size}_s"] = round(time.perf_counter() - begun, 3)
        found[f"lexical_{size}_us"] = microseconds(
            lambda index=index: [index.match(b.tokens, b.lengths, 0.5) for b in batches],  # type: ignore[misc]
            len(texts),
        )
        if size <= 10_000:
            detector = TriggerDetector(Thresholds(), catalogue(strings))
            found[f"detector_{size}_us"] = microseconds(
                lambda detector=detector: [detector.score_batch(b) for b in batches],  # type: ignore[misc]
                len(texts),
            )
    for size in (100, 1_000):
        sentences = tokenise([text[:150] for text in texts[:size]])
        meaning = SemanticIndex(embedding, sentences)
        found[f"semantic_{size}_us"] = microseconds(
            lambda meaning=meaning: [meaning.match(b) for b in batches],  # type: ignore[misc]
            len(texts),
        )
    if as_json:
        click.echo(json.dumps(found))
        return
    for name, value in found.items():
        click.echo(f"{name:24} {value:>10}")


if __name__ == "__main__":
    main()
