"""Unseen triggers from the stream, first level: windows of one partition that come back and move the router.

Every prompt's shingles of three tokens are looked up. What is seen for the first time goes into a ring; what comes
back gets a place in a table: signatures of the last bodies that it stood in, how many they were, and two CUSUMs
(Page, Biometrika 1954) of how far the router's score was above or below what the *rest* of the prompt gets. A use
counts only under a body that is not like the last ones. What has evidence enough is grown to the window that
comes back with it, and goes to the fleet lane as a candidate: ordinary content lifts scores too, and only the
second level (campaigns.py) can tell it from a trigger.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from detectors.contract import Answer, Case
from detectors.discovery import kernel
from detectors.discovery.expectation import Expectation
from detectors.discovery.memory import Memory
from detectors.discovery.texts import hashed
from detectors.discovery.windows import Seen, bucket_bits, unpack_windows
from detectors.keyed import Keyed, compound_key
from detectors.thresholds import Thresholds
from schemas.events import Route
from schemas.verdicts import Direction, Place, Reason, WindowUse

WINDOWS = 1 << 19  # of a partition: 44 MB when full
VERSIONS = 16  # of routers
REST_TOKENS = 24  # of a body that are told to the fleet lane
EDGE = 6  # tokens that may lie between a window and the end of the text: a mutated window begins later
_COUNTS_KEY = "n"
_COUNTS = struct.Struct("<2Q")


@dataclass(slots=True)
class _Taken:
    """What scoring a case worked out: `learn` takes it over."""

    case: Case
    seen: Seen | None
    model_key: str
    score: float | None
    minute: int
    answer: Answer


class Discovery:
    """A StreamDetector. Judges at the verdict; the score is the evidence in standard deviations."""

    name = "discovery"
    version = "3"
    kinds = ("trigger_candidate", "unseen_trigger", "usual_window")

    def __init__(self, thresholds: Thresholds, windows: int = WINDOWS, versions: int = VERSIONS) -> None:
        """`windows`: how many are remembered, a power of two."""
        self._thresholds = thresholds
        self._memory = Memory(windows)
        self._models = Keyed("m/", versions, Expectation.pack, Expectation)
        self._requests = 0  # with a text, so far
        self._stored_requests = -1  # as last given to a checkpoint
        self._candidate_at = 0  # of the requests, the last that was a candidate
        self._scratch = np.zeros((kernel.SCRATCH, kernel.MOST_TOKENS), np.int64)
        self._out = np.zeros(kernel.OUT, np.int64)
        self._rarest = np.zeros(REST_TOKENS, np.uint16)
        self._taken: _Taken | None = None

    @property
    def evicted(self) -> int:
        """Windows and routers dropped, or refused a place, by this process for want of room."""
        return int(self._memory.lost.sum()) + self._models.evicted

    @property
    def nbytes(self) -> int:
        """Memory of its tables, all of it taken."""
        return self._memory.nbytes

    def score(self, case: Case) -> Answer:
        """Most evidence of the prompt's windows; a candidate is a Reason without a flag; None without a text."""
        return self._take(case).answer

    def learn(self, case: Case, flagged: bool) -> None:
        """Remember the windows, flagged or not: an attack is what is counted here. Models learn from the rest."""
        taken = self._take(case)
        self._taken = None
        if taken.seen is None:
            return
        memory = self._memory
        memory.added = kernel.take(
            len(taken.seen.tokens), taken.minute, self._requests, memory.keys, memory.rows, memory.dirty,
            memory.sightings, memory.index, memory.added, self._scratch, self._out, memory.lost,
        )  # fmt: skip
        self._requests += 1
        if isinstance(taken.answer, Reason):
            self._candidate_at = self._requests
        if taken.score is None or flagged:
            return
        model = self._models.get(taken.model_key) or Expectation()
        if model.wants(case.request.event_id):
            learner = _learner(case.request.tenant_id, case.request.principal_hash)
            model.learn(taken.score, taken.seen.tokens, learner)
            self._models.put(taken.model_key, model, model.established)

    def forget(self, tenant: str, principal: str) -> None:
        """See `Forgetful.forget`: of a principal there are hashes that cap its share of a model."""
        self._taken = None
        learner = _learner(tenant, principal)
        for key, model in list(self._models.items()):
            if model.forget(learner):
                self._models.put(key, model, model.established)

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """See `StreamDetector.changes`."""
        yield from self._models.changes()
        yield from self._memory.changes()
        if self._requests != self._stored_requests:
            self._stored_requests = self._requests
            yield _COUNTS_KEY, _COUNTS.pack(self._requests, self._candidate_at)

    def snapshot(self) -> dict[str, bytes]:
        """See `StreamDetector.snapshot`."""
        counts = {_COUNTS_KEY: _COUNTS.pack(self._requests, self._candidate_at)}
        return self._models.snapshot() | self._memory.snapshot() | counts

    def load(self, key: str, value: bytes | None) -> None:
        """See `StreamDetector.load`."""
        self._taken = None
        if key == _COUNTS_KEY and value is not None:
            self._requests, self._candidate_at = _COUNTS.unpack(value)
            self._stored_requests = self._requests
        elif not self._models.load(key, value) and value is not None:
            self._memory.load(key, value)

    def _take(self, case: Case) -> _Taken:
        taken = self._taken
        if taken is None or taken.case is not case:
            taken = self._taken = self._judge(case)
        return taken

    def _judge(self, case: Case) -> _Taken:
        seen, route = _seen(case), case.route
        if seen is None:
            return _Taken(case, None, "", None, 0, None)
        model_key, score = "", None
        if route is not None:
            score = _score(route)
            kind = "score" if route.difficulty_score is not None else "tier"
            model_key = compound_key(route.router_name, route.router_version, kind)
        model = self._models.get(model_key) if score is not None else None
        ready = model is not None and model.ready
        z = model.normal(score) if ready and model is not None and score is not None else math.nan
        minute = int(case.time // 60) & 0xFFFF
        memory, values = self._memory, self._thresholds
        memory.ready()
        kernel.look(
            seen.tokens, z, model.weights if ready and model is not None else _NOTHING,
            model.spread if ready and model is not None else 1.0,
            bucket_bits(), values["discovery.slack"], values["discovery.evidence"], values["discovery.bodies"],
            values["discovery.bits"], values["discovery.baseline"], values["discovery.newness"],
            minute, self._requests,
            memory.keys, memory.rows, memory.sightings, memory.index,
            self._scratch, self._out,
        )  # fmt: skip
        return _Taken(case, seen, model_key, score, minute, self._answer(seen, model))

    def _answer(self, seen: Seen, model: Expectation | None) -> Answer:
        out = self._out.tolist()
        evidence = out[kernel.EVIDENCE_OF] / kernel.UNIT
        if not out[kernel.FOUND] or model is None:
            return evidence
        begin, end, size = out[kernel.BEGIN], out[kernel.END_TOKEN], len(seen.tokens)
        direction: Direction = "up" if out[kernel.SIGN] > 0 else "down"
        place: Place = "head" if begin <= EDGE else "tail" if end >= size - EDGE else "inside"
        use = WindowUse(
            bodies=out[kernel.BODIES_SEEN],
            residual=out[kernel.RESIDUAL] / kernel.UNIT,
            scale=model.scale,
            place=place,
            parts=out[kernel.PARTS],
            usual=bool(out[kernel.IS_USUAL]),
            tokens=hashed(seen.tokens[begin:end].tolist()),
            rest=self._rest(seen.tokens),
            requests=self._requests + 1 - self._candidate_at,
            # To the edge that it stands at: what is new there may be its own, replaced in this use.
            text=seen.window_text(0 if place == "head" else begin, size if place == "tail" else end),
        )
        return Reason(
            detector=self.name,
            detector_version=self.version,
            score=evidence,
            threshold=self._thresholds["discovery.evidence"],
            threshold_version=self._thresholds.version,
            kind="trigger_candidate",
            stage="window",
            direction=direction,
            seen=use.residual,
            window=f"{out[kernel.FAMILY_OF]:08x}",
            use=use,
        )

    def _rest(self, tokens: NDArray[np.uint16]) -> list[int]:
        """Hashes of a body's rarest tokens, ascending."""
        n = kernel.rarest_outside(tokens, self._scratch, bucket_bits(), self._out, self._rarest)
        return sorted(set(hashed(self._rarest[:n].tolist())))


_NOTHING: NDArray[np.float32] = np.zeros_like(Expectation().weights)


def _seen(case: Case) -> Seen | None:
    if case.outcome is not None or not case.prompt.windows:
        return None
    try:
        return unpack_windows(case.prompt.windows)
    except ValueError:
        return None


def _score(route: Route) -> float | None:
    """The router's score, harder is higher; its tier where it says none."""
    score = route.difficulty_score
    if score is None:
        return None if route.tier_rank is None else float(route.tier_rank)
    return score * route.score_direction if math.isfinite(score) else None


@lru_cache(maxsize=16_384)
def _learner(tenant: str, principal: str) -> int:
    raw = f"{tenant}\0{principal}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "little") or 1
