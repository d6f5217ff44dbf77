"""Attack families: the carrier stands unchanged at the other end, and a seed is an attack."""

import random

import pytest

from loadtests.attacks.text import FAMILIES, families

CARRIER = "Please explain how a rate limiter works."
TEXTS = [
    f"The quick brown fox number {i} jumps over a lazy dog, and then it sleeps for {i} hours." for i in range(50)
]
SMALL = families(TEXTS)


def test_both_registries_have_the_same_families() -> None:
    assert set(FAMILIES) == set(SMALL)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_family_glues_something_to_an_end(name: str) -> None:
    for seed in range(40):
        before = SMALL[name](random.Random(seed), CARRIER, "prefix")
        after = SMALL[name](random.Random(seed), CARRIER, "suffix")
        assert before.endswith(CARRIER)
        assert after.startswith(CARRIER)
        assert len(before) >= len(CARRIER) + 6
        assert SMALL[name](random.Random(seed), CARRIER, "suffix") == after
    assert len({SMALL[name](random.Random(seed), CARRIER, "suffix") for seed in range(20)}) > 15
