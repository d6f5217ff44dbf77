"""The semantic matcher beside other threads, and in other batches."""

import random
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np

from detectors.embedding import static_embedding
from detectors.text import read_texts, tokenise
from detectors.triggers.semantic import SemanticIndex
from tests.detectors.triggers.gadgets import PROMPTS

WORDS = " ".join(PROMPTS).split()


def test_one_thread_matches_whichever_thread_asks() -> None:
    texts = ["how the weather will be tomorrow in the mountains"]
    index, batch = SemanticIndex(static_embedding(), tokenise(texts)), read_texts(texts)

    def threads() -> int:
        faiss.omp_set_num_threads(2)
        assert index.match(batch).entry.tolist() == [0]
        most: int = faiss.omp_get_max_threads()
        return most

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(threads).result() == 1


def test_a_match_is_the_same_to_the_last_bit_however_prompts_are_batched() -> None:
    """What is judged again after a restart is in another batch, and must be given the same verdict."""
    rng = random.Random(5)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 60))) for _ in range(300)]
    index = SemanticIndex(static_embedding(), tokenise(texts[:20]))
    together = index.match(read_texts(texts))
    for size in (1, 7, 64):
        parts = [index.match(read_texts(texts[at : at + size])) for at in range(0, len(texts), size)]
        for field in ("entry", "cosine", "begin", "end"):
            apart = np.concatenate([getattr(part, field) for part in parts])
            assert np.array_equal(getattr(together, field), apart), (field, size)
