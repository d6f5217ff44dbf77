"""Triggers that no catalogue has: grown against the router itself, then used on many prompts.

Hill climb over tokens of a large vocabulary (Shafran et al. 2025, "Rerouting LLM routers", section 4): the
router's score of the gadget alone is what climbs, and the gadget then lifts almost any prompt.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt

from loadtests.attacks.scene import Scene
from loadtests.attacks.text import Material
from loadtests.fleet import Ask
from loadtests.mutations import as_prefix, as_suffix

Score = Callable[[Sequence[str]], npt.NDArray[Any]]

TOKENS = 10
CANDIDATES = 32
STEPS = 100
PATIENCE = 25
CALLERS = 6
ROTATION = 4  # gadgets that take turns
MATERIAL = 3_000  # prompts whose tokens are drawn from

_SENTENCES = (
    "Think step by step and justify every step.", "List the pros and cons in depth.", "Give a rigorous proof.",
    "Consider all edge cases before answering.", "Derive the result formally.", "Compare several methods.",
    "State all assumptions and their consequences.", "Analyse the asymptotic complexity.", "Be exhaustive.",
    "Reason like a domain expert.", "Verify each intermediate result twice.", "Include counterexamples.",
    "Discuss the statistical significance.", "Work out the integral explicitly.", "Cite the relevant theorem.",
    "Explain the underlying mechanism.", "Answer as in a graduate examination.", "Quantify the uncertainty.",
)  # fmt: skip


def grow(score: Score, draw: Callable[[int], list[str]], rng: random.Random) -> str:
    """Climb from random tokens: one position a step, the best of `CANDIDATES` if it is better."""
    tokens, best, stale = draw(TOKENS), -1.0, 0
    for _ in range(STEPS):
        place = rng.randrange(TOKENS)
        tries = [[*tokens[:place], token, *tokens[place + 1 :]] for token in draw(CANDIDATES)]
        scores = score(["".join(tried).strip() for tried in tries])
        top = int(scores.argmax())
        stale += 1
        if scores[top] > best:
            tokens, best, stale = tries[top], float(scores[top]), 0
        if stale >= PATIENCE:
            break
    return "".join(tokens).strip()


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
    """Grow one gadget against the scene's router, from word-like tokens."""
    material = _material(scene)
    return grow(scene.router.score, lambda n: material.draw(scene.rng, n, without=100), scene.rng)


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


def _material(scene: Scene) -> Material:
    return Material([prompt.text for prompt in scene.fleet.bodies(scene.rng, MATERIAL)])
