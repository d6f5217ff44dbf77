"""Difficulty estimates that cannot be right: far below what prompts like these get, or at odds with themselves.

*Learnt.* River's Bayesian linear regression (regression.py) predicts, for each version of a router, the rank of
its score from the prompt's static embedding and sizes; what is judged is the residual, one-sided, against a
robust spread (model.py), alone and added up over a principal's scores (habit.py). Of River's online regressions
it is the one that reaches what offline ridge regression does; the comparison is in docs/detectors/difficulty.md.
Flagged cases do not train, no principal has more than a quarter of the training, and cases to learn are drawn by
the event's id.

*Free.* Boundaries that changed under one router; a score below its tier's boundary in the top tier, as LiteLLM's
`reasoning_override` did (BerriAI/litellm#37500), or the score of a top tier in the lowest; a caller who chose the
threshold so low that nearly all prompts pass it.
"""

import hashlib
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from detectors.contract import Answer, Case
from detectors.difficulty.habit import Habit
from detectors.difficulty.model import MOST_LOW, RouterModel, features
from detectors.difficulty.regression import Vector
from detectors.keyed import Keyed, compound_key
from detectors.thresholds import Thresholds
from schemas.events import Route
from schemas.verdicts import Direction, Reason

VERSIONS = 32
ROUTERS = 1_024
PRINCIPALS = 50_000
PAST = 20  # scores after which a principal's usual is protected from a flood of new principals
KNOWN_BOUNDARIES = 4  # of a router: a fleet in the middle of a deployment shows two
MOST_SCORE = 1e9
NEAR = 0.7  # share of the threshold from which the answer says why

ESTABLISHED = 50  # cases after which a router's boundaries are protected from a flood of invented routers
_MARKS = struct.Struct(f"<{KNOWN_BOUNDARIES}QB")  # and the cases seen, up to ESTABLISHED
_NOTES = {
    "boundaries_changed": "The router's tier boundaries are none of those last seen",
    "tier_contradiction": "The score belongs to a low tier, the route took the top one",
    "tier_downgrade": "The score belongs to a top tier, the route took the lowest",
    "caller_threshold": "The caller chose a threshold that nearly every prompt passes",
    "spoofed_difficulty": "The difficulty estimate is far below what prompts like this one get",
}


@dataclass(slots=True)
class _Taken:
    """What scoring a case worked out: `learn` and `residual` take it over."""

    case: Case
    model_key: str
    x: Vector | None
    residual: float | None
    habit: Habit | None
    answer: Answer


class Difficulty:
    """A StreamDetector. Judges at the verdict, where the route says a score."""

    name = "difficulty"
    version = "3"
    kinds = ("spoofed_difficulty", "tier_contradiction", "tier_downgrade", "caller_threshold", "boundaries_changed")

    def __init__(
        self,
        thresholds: Thresholds,
        versions: int = VERSIONS,
        routers: int = ROUTERS,
        principals: int = PRINCIPALS,
    ) -> None:
        self._thresholds = thresholds
        # Of version 2, "m/", nothing can be read: what is learnt begins anew.
        self._models = Keyed("r/", versions, RouterModel.pack, RouterModel)
        self._boundaries = Keyed("b/", routers, bytes, bytes)
        self._habits = Keyed("p/", principals, bytes, bytes)
        self._taken: _Taken | None = None

    @property
    def evicted(self) -> int:
        """Keys dropped by this process for want of room."""
        return self._models.evicted + self._boundaries.evicted + self._habits.evicted

    def score(self, case: Case) -> Answer:
        """How far below the expected, in robust standard deviations; None: no score, or no model yet."""
        return self._take(case).answer

    def residual(self, case: Case) -> float | None:
        """How far above what its prompt gets the score is; what `steering` adds up per principal."""
        return self._take(case).residual

    def learn(self, case: Case, flagged: bool) -> None:
        """Remember the boundaries; train on cases that nothing flagged."""
        taken, route = self._take(case), case.route
        self._taken = None
        if route is None or case.outcome is not None:
            return
        self._learn_boundaries(route)
        self._learn_habit(taken)
        score = _score(route)
        if score is None or taken.x is None:
            return
        model = self._models.get(taken.model_key) or RouterModel()
        if isinstance(taken.answer, Reason) and taken.answer.kind == "spoofed_difficulty" and taken.answer.flagged:
            model.low += 1
            if model.low > MOST_LOW:
                model = RouterModel()
        elif flagged or not model.wants(case.request.event_id):
            return
        else:
            model.low = max(0, model.low - 1)
            model.learn(score, taken.x, _learner(case.request.tenant_id, case.request.principal_hash))
        self._models.put(taken.model_key, model, model.established)

    def forget(self, tenant: str, principal: str) -> None:
        """See `Forgetful.forget`: of a principal there are its habit, and hashes that cap its share of a model."""
        self._taken = None
        self._habits.drop(compound_key(tenant, principal))
        learner = _learner(tenant, principal)
        for key, model in list(self._models.items()):
            if model.forget(learner):
                self._models.put(key, model, model.established)

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """See `StreamDetector.changes`."""
        for store in (self._models, self._boundaries, self._habits):
            yield from store.changes()

    def snapshot(self) -> dict[str, bytes]:
        """See `StreamDetector.snapshot`."""
        return self._models.snapshot() | self._boundaries.snapshot() | self._habits.snapshot()

    def load(self, key: str, value: bytes | None) -> None:
        """See `StreamDetector.load`."""
        self._taken = None
        for store in (self._models, self._boundaries, self._habits):
            if store.load(key, value):
                return

    def _take(self, case: Case) -> _Taken:
        taken = self._taken
        if taken is None or taken.case is not case:
            taken = self._taken = self._judge(case)
        return taken

    def _judge(self, case: Case) -> _Taken:
        route, request, prompt = case.route, case.request, case.prompt
        if route is None or case.outcome is not None:
            return _Taken(case, "", None, None, None, None)
        key = compound_key(route.router_name, route.router_version, "text" if prompt.vector else "sizes")
        score, residual, x, habit = _score(route), None, None, None
        model = self._models.get(key)
        answer: Answer = self._free(route, score, model)
        if score is not None:
            x = features(prompt.vector, request.prompt_chars, request.prompt_tokens_est, request.n_messages)
            if x is not None and model is not None and model.ready:
                residual = model.residual(score, x)
                if answer is None:  # what contradicts itself has been said: it is no habit beside
                    habit = self._habit_of(case)
                    habit.add(-residual, prompt.likeness)
                    answer = self._spoofed(-residual / model.tail, habit.low)
        return _Taken(case, key, x, residual, habit, answer)

    def _free(self, route: Route, score: float | None, model: RouterModel | None) -> Reason | None:
        """What needs no model of prompts."""
        mark = _mark(route)
        known = self._known(route.router_name)[:-1]
        if mark and known[0] and mark not in known:
            return self._reason("boundaries_changed", 1.0, 1.0)
        if score is not None and route.tier_rank is not None and not (route.escalated or route.fallback_from):
            cuts = [cut * route.score_direction for cut in route.tier_boundaries.values() if math.isfinite(cut)]
            expected = sum(cut <= score for cut in cuts)
            steps, limit = route.tier_rank - expected, self._thresholds["difficulty.contradiction_steps"]
            if cuts and route.tier_rank >= len(cuts) and steps >= limit:
                seen = float(min(route.tier_rank, len(cuts)))
                return self._reason("tier_contradiction", float(steps), limit, "up", float(expected), seen)
            if route.tier_rank == 0 and -steps >= limit:
                return self._reason("tier_downgrade", float(-steps), limit, "down", float(expected), 0.0)
        threshold = route.router_threshold
        if route.threshold_source == "caller" and threshold is not None and math.isfinite(threshold):
            threshold *= route.score_direction
            passing = (
                model.share_above(threshold) if model is not None and model.established else float(threshold <= 0)
            )
            limit = self._thresholds["difficulty.caller_share"]
            if passing >= limit:
                return self._reason("caller_threshold", passing, limit, "up")
        return None

    def _spoofed(self, below: float, low: float) -> Answer:
        """By the score alone, or as one more of a habit: said on one scale, that of the score alone."""
        limit, habit = self._thresholds["difficulty.spoofed"], self._thresholds["difficulty.habit"]
        if low >= habit and below < limit:
            return self._reason("spoofed_difficulty", limit * low / habit, limit, "down", stage="habit")
        if below < min(NEAR * limit, self._thresholds.strictest("difficulty.spoofed")):
            return below
        return self._reason("spoofed_difficulty", below, limit, "down")

    def _reason(
        self,
        kind: str,
        score: float,
        threshold: float,
        direction: Direction = "",
        expected: float | None = None,
        seen: float | None = None,
        stage: str = "",
    ) -> Reason:
        return Reason(
            detector=self.name,
            detector_version=self.version,
            score=score,
            threshold=threshold,
            threshold_version=self._thresholds.version,
            flagged=score >= threshold,
            kind=kind,
            stage=stage,
            direction=direction,
            expected=expected,
            seen=seen,
            note=_NOTES[kind],
        )

    def _habit_of(self, case: Case) -> Habit:
        value = self._habits.get(compound_key(case.request.tenant_id, case.request.principal_hash))
        return Habit.unpack(value) if value else Habit()

    def _learn_habit(self, taken: _Taken) -> None:
        if taken.habit is None or taken.residual is None:
            return
        habit, request = taken.habit, taken.case.request
        habit.learn(-taken.residual)
        key = compound_key(request.tenant_id, request.principal_hash)
        self._habits.put(key, habit.pack(), habit.seen >= PAST)

    def _known(self, router: str) -> tuple[int, ...]:
        value = self._boundaries.get(compound_key(router))
        return _MARKS.unpack(value) if value else (0,) * (KNOWN_BOUNDARIES + 1)

    def _learn_boundaries(self, route: Route) -> None:
        mark, (*known, seen) = _mark(route), self._known(route.router_name)
        if mark and (mark != known[0] or seen < ESTABLISHED):
            kept = [mark, *(other for other in known if other != mark)][:KNOWN_BOUNDARIES]
            seen = min(seen + 1, ESTABLISHED)
            self._boundaries.put(compound_key(route.router_name), _MARKS.pack(*kept, seen), seen >= ESTABLISHED)


def _score(route: Route) -> float | None:
    """The score, higher is harder; None if there is none or it is no number."""
    score = route.difficulty_score
    if score is None or not math.isfinite(score) or abs(score) > MOST_SCORE:
        return None
    return score * route.score_direction


def _mark(route: Route) -> int:
    """A non-zero hash of the tier boundaries; 0: none given."""
    return _hash_boundaries(tuple(route.tier_boundaries.items())) if route.tier_boundaries else 0


@lru_cache(maxsize=4_096)
def _hash_boundaries(boundaries: tuple[tuple[str, float], ...]) -> int:
    return _hash(repr(sorted(boundaries)))


def _learner(tenant: str, principal: str) -> int:
    return _hash(compound_key(tenant, principal))


@lru_cache(maxsize=4_096)
def _hash(text: str) -> int:
    return (
        int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little") | 1
    )
