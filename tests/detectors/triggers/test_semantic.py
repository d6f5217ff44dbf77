"""The semantic matcher beside other threads."""

from concurrent.futures import ThreadPoolExecutor

import faiss

from detectors.embedding import static_embedding
from detectors.text import read_texts, tokenise
from detectors.triggers.semantic import SemanticIndex


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
