"""Which of the known texts a window is a use of: by its tokens, since each lane cuts windows by itself."""

import math
from collections.abc import Collection, Iterable
from functools import cache, lru_cache
from heapq import nlargest

import numpy as np

from detectors.discovery.windows import bucket_bits

HASHES = 4_096  # so that a hash stands for two buckets, and about eight tokens: told to the fleet lane, no text
ALIKE = 0.5  # cosine: of a whole text and a copy with a fifth of its words replaced it is 0.8, of two copies 0.65
MOST_READ = 256  # entries of the index a look-up, from the token that the fewest texts have
MOST_COMPARED = 8  # texts that may be most alike by them


def hashed(buckets: Iterable[int]) -> list[int]:
    """Tokens' hashes, from their buckets."""
    return [int(bucket) % HASHES for bucket in buckets]


class Texts:
    """The texts in use, each by its key, found by the tokens that it has in common with a window."""

    def __init__(self) -> None:
        self._tokens: dict[str, frozenset[int]] = {}
        self._bits: dict[str, float] = {}  # of each text
        self._having: dict[int, set[str]] = {}  # token -> keys

    def put(self, key: str, tokens: Iterable[int]) -> None:
        """Add a text, or replace it."""
        new, old = frozenset(tokens), self._tokens.get(key, frozenset())
        for token in old - new:
            self._having[token].discard(key)
        for token in new - old:
            self._having.setdefault(token, set()).add(key)
        self._tokens[key], self._bits[key] = new, _information(new) or 1.0

    def drop(self, key: str) -> None:
        """Forget a text."""
        for token in self._tokens.pop(key, frozenset()):
            self._having[token].discard(key)
        self._bits.pop(key, None)

    def like(self, tokens: Collection[int]) -> list[str]:
        """The keys of the texts that a window is like, the likest first."""
        bits, window = _bits(), set(tokens)
        shared: dict[str, float] = {}
        read = 0
        for size, token in sorted((len(self._having.get(token, ())), token) for token in window):
            if size:
                for key in self._having[token]:
                    shared[key] = shared.get(key, 0.0) + bits[token]
            read += size
            if read > MOST_READ:
                break
        most = nlargest(MOST_COMPARED, ((both * both / self._bits[key], key) for key, both in shared.items()))
        found = sorted(((alike(window, self._tokens[key]), key) for _, key in most), reverse=True)
        return [key for likeness, key in found if likeness >= ALIKE]


def alike(one: Collection[int], other: Collection[int]) -> float:
    """Cosine of two windows' distinct tokens, by their information: 0 to 1."""
    mine, theirs = frozenset(one), frozenset(other)
    both = _information(mine) * _information(theirs)
    return _information(mine & theirs) / math.sqrt(both) if both else 0.0


@lru_cache(maxsize=16_384)
def _information(tokens: frozenset[int]) -> float:
    bits = _bits()
    return math.fsum(bits[token] for token in tokens)


@cache
def _bits() -> list[float]:
    """float[HASHES]: of the commonest token that a hash stands for."""
    least: list[float] = np.min(bucket_bits().reshape(-1, HASHES), axis=0).tolist()
    return least
