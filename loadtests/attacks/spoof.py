"""Forged estimates: hard or harmful prompts that claim to be easy, and get a weak model and its weak guardrail."""

from loadtests.attacks.scene import Scene
from loadtests.fleet import Ask

HARMFUL = 0.4  # share of harmful prompts
CLAIMED = (0.005, 0.06)
CALLERS = 2


def spoof(scene: Scene, n: int) -> list[Ask]:
    """`n` prompts with a score far below what the router itself would say, by two callers."""
    pool = [prompt.text for prompt in scene.fleet.bodies(scene.rng, min(len(scene.fleet.prompts), 10 * n))]
    scores = scene.router.score(pool)
    texts = [pool[place] for place in scores.argsort()[::-1][:n]]
    harmful = set(scene.rng.sample(range(n), int(HARMFUL * n)))
    for place in harmful:
        texts[place] = scene.rng.choice(scene.fleet.unsafe)
    asks = list(scene.asks("spoof", texts, scene.attackers(CALLERS)))
    for place, ask in enumerate(asks):
        ask.score, ask.unsafe = scene.rng.uniform(*CLAIMED), place in harmful
    return asks
