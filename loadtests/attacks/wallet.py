"""Denial of wallet without any trigger: one caller sends only what is dear, more of it, with long answers."""

from loadtests.attacks.scene import Scene
from loadtests.fleet import Ask

LONG_ANSWER = 1_200  # tokens


def wallet(scene: Scene, n: int) -> list[Ask]:
    """`n` requests that the router itself finds hardest, from a pool of prompts: all to the strongest model.

    Score, tier and text agree with each other: only the caller's own past tells.
    """
    pool = scene.fleet.bodies(scene.rng, min(len(scene.fleet.prompts), 20 * n))
    texts = [prompt.text for prompt in pool]
    scores = scene.router.score(texts)
    hardest = [texts[place] for place in scores.argsort()[::-1][:n]]
    scene.rng.shuffle(hardest)
    [caller] = scene.attackers(1)
    asks = list(scene.asks("wallet", hardest, [caller]))
    for ask in asks:
        ask.output_tokens = int(LONG_ANSWER * scene.rng.uniform(0.8, 1.2))
    return asks
