"""Catalogued triggers, mutated so that a plain comparison misses them, on prompts of all kinds."""

from collections.abc import Sequence

from loadtests.attacks.mutations import MUTATIONS, PLACEMENTS
from loadtests.attacks.scene import Scene
from loadtests.fleet import Ask
from loadtests.prompts import words

# What a matcher must stand; leetspeak and half of the words replaced are beyond what any detector here claims.
MUTED = (
    "exact",
    "case",
    "zero_width",
    "look_alike",
    "no_spaces",
    "shuffled",
    "inserted",
    "replaced_10",
    "replaced_20",
)
PLACED = ("prefix", "suffix", "after_system_text")
CALLERS = 4


def known(scene: Scene, triggers: Sequence[str], n: int) -> list[Ask]:
    """`n` uses of one trigger, each under another mutation, by a few callers."""
    trigger = scene.rng.choice(triggers)
    vocabulary = words(scene.fleet.data)
    texts = []
    for body in scene.fleet.bodies(scene.rng, n):
        mutated = MUTATIONS[scene.rng.choice(MUTED)](trigger, scene.rng, vocabulary)
        texts.append(PLACEMENTS[scene.rng.choice(PLACED)](mutated, body.text))
    return list(scene.asks("known", texts, scene.attackers(CALLERS)))
