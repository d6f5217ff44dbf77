"""Triggers that no catalogue has: grown against the router itself, then used on many prompts."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt

from detectors.triggers.grow import grow
from loadtests.attacks.scene import Scene
from loadtests.fleet import Ask
from loadtests.mutations import as_prefix, as_suffix

Score = Callable[[Sequence[str]], npt.NDArray[Any]]

CALLERS = 6
ROTATION = 4  # gadgets that take turns

_SENTENCES = (
    "Think step by step and justify every step.", "List the pros and cons in depth.", "Give a rigorous proof.",
    "Consider all edge cases before answering.", "Derive the result formally.", "Compare several methods.",
    "State all assumptions and their consequences.", "Analyse the asymptotic complexity.", "Be exhaustive.",
    "Reason like a domain expert.", "Verify each intermediate result twice.", "Include counterexamples.",
    "Discuss the statistical significance.", "Work out the integral explicitly.", "Cite the relevant theorem.",
    "Explain the underlying mechanism.", "Answer as in a graduate examination.", "Quantify the uncertainty.",
)  # fmt: skip


def fluent(score: Score, rng: random.Random) -> str:
    """Three ordinary sentences that together score highest: no gibberish to see."""
    chosen: list[str] = []
    for _ in range(3):
        left = [sentence for sentence in _SENTENCES if sentence not in chosen]
        scores = score([" ".join([*chosen, sentence]) for sentence in left])
        chosen.append(left[int(scores.argmax())])
    rng.shuffle(chosen)
    return " ".join(chosen)


def grown(scene: Scene) -> str:
    """Grow one gadget of word-like tokens against the scene's router (detectors/triggers/grow.py has the climb)."""
    return grow(scene.router.score, "wordlike", seed=scene.rng.getrandbits(32)).text


def unseen(scene: Scene, n: int) -> list[Ask]:
    """`n` uses of one fresh gadget, before or after distinct prompts, by several callers."""
    return _campaign(scene, "unseen", [grown(scene)], n, scene.rng.choice((as_prefix, as_suffix)))


def rotation(scene: Scene, n: int) -> list[Ask]:
    """Several gadgets that take turns, so that each is seen seldom."""
    return _campaign(scene, "rotation", [grown(scene) for _ in range(ROTATION)], n, as_suffix)


def middle(scene: Scene, n: int) -> list[Ask]:
    """A gadget in the middle of the prompt, where few look."""

    def inside(gadget: str, prompt: str) -> str:
        parts = prompt.split(" ")
        half = len(parts) // 2
        return " ".join([*parts[:half], gadget, *parts[half:]])

    return _campaign(scene, "middle", [grown(scene)], n, inside)


def phrase(scene: Scene, n: int) -> list[Ask]:
    """A fluent escalation phrase, used like a gadget."""
    return _campaign(scene, "phrase", [fluent(scene.router.score, scene.rng)], n, as_suffix)


def _campaign(
    scene: Scene, name: str, gadgets: Sequence[str], n: int, place: Callable[[str, str], str]
) -> list[Ask]:
    bodies = scene.fleet.bodies(scene.rng, n)
    texts = [place(gadgets[number % len(gadgets)], body.text) for number, body in enumerate(bodies)]
    return list(scene.asks(name, texts, scene.attackers(CALLERS)))
