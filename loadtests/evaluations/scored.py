"""Prompts with what a real router says of them: what the evaluations of `difficulty` and `steering` share."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from detectors.contract import Case, PromptFacts
from detectors.embedding import static_embedding
from detectors.text import read_prompts
from loadtests.prompts import benign, data_dir, labelled
from loadtests.router import TIERS, DifficultyRouter, Kind
from schemas.events import Request, Route
from schemas.verdicts import Reason

Floats = npt.NDArray[np.float64]
CHUNK = 512
# sd of noise on the router's score as a normal deviate, and what share of decisions at the median it flips
NOISES = ((0.0, "0 %"), (0.79, "29 %"), (2.3, "45 %"))
_NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Scored:
    """Prompts in a seeded order."""

    texts: list[str]
    topics: list[str]
    vectors: list[bytes]  # float16[64] each
    scores: Floats  # of the router
    router: DifficultyRouter

    def noisy(self, noise: float, rng: np.random.Generator) -> Floats:
        """The scores as a router with this much noise would give them."""
        ranks = np.argsort(np.argsort(self.scores))
        if noise:
            ranks = np.argsort(np.argsort(_deviates(ranks) + noise * rng.standard_normal(len(ranks))))
        return np.sort(self.scores)[ranks]

    def case(self, i: int, score: float, principal: str, time: float) -> Case:
        """The case of prompt `i` at its verdict, with this score."""
        ids = _ids(f"{time:.3f}", principal)
        chars, cuts = len(self.texts[i]), self.router.boundaries
        rank = int(np.searchsorted(list(cuts.values()), score, side="right"))
        return Case(
            time=time,
            request=Request(**ids, prompt_chars=chars, prompt_tokens_est=chars // 4, n_messages=1),
            route=Route(
                **ids, selected_model=TIERS[rank].model, router_name=self.router.name, router_version="1",
                difficulty_score=score, tier=TIERS[rank].name, tier_rank=rank, tier_boundaries=cuts,
            ),
            prompt=PromptFacts(vector=self.vectors[i]),
        )  # fmt: skip


def scored(kind: Kind, most: int, seed: int) -> Scored:
    """Up to `most` distinct prompts, benign ones and those of the routing sets.

    Raises:
        click.ClickException: there are no data.
    """
    data = data_dir()
    if data is None:
        raise click.ClickException("POINTSMAN_DATA has no prompts")
    rows = [(row.text, row.topic) for row in labelled(data)] + [(row.text, row.topic) for row in benign(data)]
    known = {text: topic for text, topic in rows if text.strip()}
    texts = sorted(known)
    random.Random(seed).shuffle(texts)
    texts, router = texts[:most], DifficultyRouter.load(kind)
    vectors = vectors_of(texts)
    return Scored(texts, [known[text] for text in texts], vectors, score(router, texts), router)


def vectors_of(texts: list[str]) -> list[bytes]:
    """Static embeddings, as the lane computes them."""
    ids = _ids("0", "p")
    out: list[bytes] = []
    for at in range(0, len(texts), CHUNK):
        batch = read_prompts([Request(**ids, prompt_text=text) for text in texts[at : at + CHUNK]])
        out += [row.tobytes() for row in static_embedding().vectors(batch).astype(np.float16)]
    return out


def score(router: DifficultyRouter, texts: list[str]) -> Floats:
    """The router's scores, in chunks."""
    return np.concatenate([router.score(texts[at : at + CHUNK]) for at in range(0, len(texts), CHUNK)])


def _ids(number: str, principal: str) -> dict[str, Any]:
    ids = {"event_id": number, "request_id": number, "tenant_id": "t", "principal_hash": principal}
    return ids | {"event_time": _NOON}


def flagged(answer: object) -> bool:
    """Whether an answer is a flag."""
    return isinstance(answer, Reason) and answer.flagged


def _deviates(ranks: npt.NDArray[np.int64]) -> Floats:
    from scipy.stats import norm

    deviates: Floats = norm.ppf((ranks + 0.5) / len(ranks))
    return deviates
