"""Bounded keyed state: eviction that protects, exact restores, keys that cannot imitate each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.keyed import Keyed, compound_key


def store(capacity: int) -> Keyed[bytes]:
    return Keyed("k/", capacity, bytes, bytes)


def test_a_flood_does_not_evict_an_established_key() -> None:
    keyed = store(8)
    keyed.put("old", b"past", established=True)
    for i in range(100):
        keyed.put(f"new{i}", b"x", established=False)
    assert keyed.get("old") == b"past"
    assert len(keyed) == 1 + 2
    assert keyed.evicted == 98


def test_the_least_recently_used_goes_first_and_is_named() -> None:
    keyed = store(8)
    assert keyed.put("a", b"1", established=False) == []
    assert keyed.put("b", b"1", established=False) == []
    keyed.put("a", b"2", established=False)
    assert keyed.put("c", b"1", established=False) == ["b"]
    assert dict(keyed.changes()) == keyed.snapshot() | {"k/b": None}


def test_established_stays_established() -> None:
    keyed = store(4)
    keyed.put("a", b"1", established=True)
    keyed.put("a", b"2", established=False)
    keyed.put("b", b"1", established=False)
    keyed.put("c", b"1", established=False)
    assert keyed.get("a") == b"2"


def test_other_stores_keys_are_refused() -> None:
    assert not store(4).load("other/a", b"")
    with pytest.raises(ValueError, match="capacity"):
        store(3)


steps = st.lists(st.tuples(st.sampled_from("abcdefghij"), st.booleans()), max_size=60)


@given(steps, steps, st.randoms(use_true_random=False))
def test_a_restored_store_evicts_the_same_keys(before, after, rng) -> None:  # type: ignore[no-untyped-def]
    running, restored, replica = store(6), store(6), store(6)
    for key, established in before:
        running.put(key, key.encode(), established)
        if rng.random() < 0.3:
            for changed, value in running.changes():
                replica.load(changed, value)
    pairs = list(running.snapshot().items())
    rng.shuffle(pairs)
    for key, value in pairs:
        restored.load(key, value)
    for key, value in running.changes():
        replica.load(key, value)
    for key, established in after:
        gone = running.put(key, b"later", established)
        assert restored.put(key, b"later", established) == gone
        assert replica.put(key, b"later", established) == gone
    assert restored.snapshot() == running.snapshot() == replica.snapshot()


parts = st.lists(st.text(alphabet="a1:#\x00é", max_size=6) | st.text(max_size=300), min_size=1, max_size=3)


@given(parts, parts)
def test_different_parts_make_different_keys(one: list[str], other: list[str]) -> None:
    assert (compound_key(*one) == compound_key(*other)) == (one == other)
    assert len(compound_key(*one)) <= 160
    compound_key(*one).encode()
