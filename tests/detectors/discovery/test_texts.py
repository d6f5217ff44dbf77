"""A window finds the text that it is a use of, cut or mutated, and none that shares a few words with it."""

import random

from detectors.discovery.texts import HASHES, Texts, alike

_RNG = random.Random(1)
ONE, OTHER = _RNG.sample(range(HASHES), 12), _RNG.sample(range(HASHES), 12)


def known() -> Texts:
    texts = Texts()
    texts.put("one", ONE)
    texts.put("other", OTHER)
    for n in range(300):
        texts.put(f"more {n}", _RNG.sample(range(HASHES), 12))
    return texts


def test_a_text_is_found_whole_in_part_and_with_a_fifth_of_its_words_replaced() -> None:
    texts = known()
    replaced = [*ONE[:4], *OTHER[:1], *ONE[5:9], 7, *ONE[10:]]
    assert [texts.like(window)[:1] for window in (ONE, ONE[3:9], replaced)] == [["one"]] * 3


def test_a_few_words_in_common_are_no_likeness() -> None:
    texts = known()
    assert "one" not in texts.like([*ONE[:3], *_RNG.sample(range(HASHES), 12)])
    assert texts.like([]) == []
    assert alike([], ONE) == 0.0


def test_the_likest_is_first() -> None:
    texts = known()
    texts.put("half", [*ONE[:9], *OTHER[:3]])
    assert texts.like(ONE) == ["one", "half"]


def test_what_is_replaced_or_dropped_is_found_no_more() -> None:
    texts = known()
    texts.put("one", [*OTHER[:2], *range(10)])
    texts.drop("other")
    assert texts.like(ONE) == []
    assert "other" not in texts.like(OTHER)
    texts.drop("never there")


def test_the_order_in_which_texts_came_does_not_matter() -> None:
    rng = random.Random(2)
    texts = {f"{n}": rng.sample(range(200), 10) for n in range(400)}
    forwards, backwards = Texts(), Texts()
    for key, tokens in texts.items():
        forwards.put(key, tokens)
    for key, tokens in reversed(texts.items()):
        backwards.put(key, tokens)
    windows = [rng.sample(range(200), 10) for _ in range(100)]
    assert [forwards.like(window) for window in windows] == [backwards.like(window) for window in windows]
