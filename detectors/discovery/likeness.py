"""Whether two windows are one text: cut elsewhere, or with a part of its words replaced."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from detectors.discovery.windows import bucket_bits

HASHES = 4_096  # so that a hash stands for two buckets, and about eight tokens: told to the fleet lane, no text
ALIKE = 0.4  # of the information of both together: of two copies with a fifth of the words replaced it is a half


def hashed(buckets: Sequence[int]) -> list[int]:
    """Tokens' hashes, from their buckets."""
    return [int(bucket) % HASHES for bucket in buckets]


def alike(one: Sequence[int], other: Sequence[int]) -> float:
    """The share of information of two windows' distinct tokens that they have in common: 0 to 1."""
    bits, mine, theirs = _bits(), set(one), set(other)
    shared = sum(bits[token] for token in mine & theirs)
    return shared / total if (total := sum(bits[token] for token in mine | theirs)) else 0.0


@cache
def _bits() -> list[float]:
    """float[HASHES]: of the commonest token that a hash stands for."""
    least: list[float] = np.min(bucket_bits().reshape(-1, HASHES), axis=0).tolist()
    return least
