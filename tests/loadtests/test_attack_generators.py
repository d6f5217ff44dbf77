"""Generators: a seed is a trigger, climbs move what they climb, paraphrases say the same in other words."""

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from detectors.triggers.grow import Direction
from loadtests.attacks import climbs, phrases, unseen
from loadtests.attacks.mutations import inside
from loadtests.attacks.text import Material

TEXTS = [
    f"The quick brown fox number {i} jumps over a dog, and then it sleeps for {i} long hours. Nobody knows why."
    for i in range(60)
]
MATERIAL = Material(TEXTS)


def score(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """A router that dislikes the letter e."""
    return np.array([1 - text.count("e") / (len(text) + 1) for text in texts])


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("sampling", sorted(climbs.SAMPLINGS))
def test_a_climb_moves_the_router_its_way(sampling: str, direction: Direction) -> None:
    sign = 1 if direction == "up" else -1
    made = climbs.gadget(score, MATERIAL, random.Random(3), sampling, direction)
    drawn = "".join(climbs.SAMPLINGS[sampling](MATERIAL, random.Random(3), 400))
    assert sign * score([made])[0] > sign * score([drawn])[0]
    assert climbs.gadget(score, MATERIAL, random.Random(3), sampling, direction) == made


def test_suffixes_are_longer_and_coordinates_leave_no_mark_that_does_not_pay() -> None:
    assert len(climbs.suffix(score, MATERIAL, random.Random(1), "uniform")) > 30
    down = climbs.coordinates(score, random.Random(1), "down")
    assert down.isascii()
    assert down.count("!") < climbs.COORDINATES / 2
    assert down.count("e") > 20


@pytest.mark.parametrize("name", sorted(unseen.GENERATORS))
def test_a_generator_is_its_seed(name: str) -> None:
    make = unseen.GENERATORS[name]
    made = [make(random.Random(seed), TEXTS) for seed in range(20)]
    assert made == [make(random.Random(seed), TEXTS) for seed in range(20)]
    assert len(set(made)) == 20
    assert min(map(len, made)) >= 15
    assert not set(made) & set(TEXTS)


def test_a_phrase_is_the_best_of_many_sentences() -> None:
    signs: dict[Direction, int] = {"up": 1, "down": -1}
    for direction, sign in signs.items():
        pool = [way for ways in phrases.INTENTS[direction] for way in ways]
        found = phrases.phrase(score, random.Random(2), direction)
        assert sign * score([found])[0] > sign * np.median(score(pool))


def test_paraphrases_change_the_words_and_keep_the_intents() -> None:
    rng = random.Random(4)
    fluent = phrases.Fluent(rng, "up")
    ways = {way: number for number, intent in enumerate(phrases.INTENTS["up"]) for way in intent}

    def intents(text: str) -> list[int]:
        return [ways[part + "."] for part in text.rstrip(".").split(". ")]

    assert sorted(intents(fluent.reordered(rng))) == sorted(intents(fluent.text))
    assert intents(fluent.reworded(rng)) == intents(fluent.text)
    assert not set(fluent.reworded(rng).split(". ")) & set(fluent.text.split(". "))
    assert fluent.text in fluent.templated(rng)
    for name, paraphrase in phrases.PARAPHRASES.items():
        assert (paraphrase(fluent, rng) == fluent.text) == (name == "verbatim"), name


def test_inside_keeps_both() -> None:
    assert inside("xx yy", "a b c d") == "a b xx yy c d"
