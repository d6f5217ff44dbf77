"""How many distinct names, in bounded memory: a sorted list of the smallest hashes (k minimum values).

Exact below K; above, (K - 1) / (the K-th smallest hash as a share of their range), relative error about
1 / sqrt(K - 2), 6 % (Bar-Yossef et al. 2002; Beyer et al., SIGMOD 2007). Order does not matter, so batches do not.
"""

from bisect import bisect_left
from hashlib import blake2b

K = 256


def digest(name: str) -> int:
    """64 bits of a name."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


def add(sketch: list[int], name: str) -> None:
    """Count a name in."""
    value = digest(name)
    at = bisect_left(sketch, value)
    if at < K and sketch[at : at + 1] != [value]:
        sketch.insert(at, value)
        del sketch[K:]


def count(sketch: list[int]) -> int:
    """Distinct names counted in so far."""
    if len(sketch) < K:
        return len(sketch)
    return max(K, round((K - 1) * 2**64 / sketch[-1]))
