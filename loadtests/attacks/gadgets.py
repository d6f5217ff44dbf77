"""Triggers that no catalogue has: grown against the router itself, then used on many prompts."""

from collections.abc import Callable, Sequence

from detectors.triggers.grow import grow
from loadtests.attacks import phrases
from loadtests.attacks.mutations import as_prefix, as_suffix, inside
from loadtests.attacks.scene import Scene
from loadtests.fleet import Ask

CALLERS = 6
ROTATION = 4  # gadgets that take turns


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
    return _campaign(scene, "middle", [grown(scene)], n, inside)


def phrase(scene: Scene, n: int) -> list[Ask]:
    """A fluent escalation phrase, used like a gadget."""
    return _campaign(scene, "phrase", [phrases.phrase(scene.router.score, scene.rng)], n, as_suffix)


def _campaign(
    scene: Scene, name: str, gadgets: Sequence[str], n: int, place: Callable[[str, str], str]
) -> list[Ask]:
    bodies = scene.fleet.bodies(scene.rng, n)
    texts = [place(gadgets[number % len(gadgets)], body.text) for number, body in enumerate(bodies)]
    return list(scene.asks(name, texts, scene.attackers(CALLERS)))
