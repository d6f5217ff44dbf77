"""Probing: one caller tries many versions of one prompt that differ in a few places, now here, now there.

Hill climbing, as triggers are grown (Shafran et al., "Rerouting LLM Routers", 2025, section 4), asks the router for
the score of a prompt with one token replaced, again and again, at changing positions. Ordinary people edit prompts
too, and a slot template differs in one place for ever; so it takes many near-duplicates *and* many positions, and
even then it is context for a campaign, never an alert by itself.

What is compared is a sketch of the prompt: hashes of its first 1, 2, 3, ... tokens and of its last ones. Two
prompts begin alike as far as their prefix hashes agree, and end alike as far as their suffix hashes do: together
that says whether one is an edit of the other, and where.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from detectors.contract import Answer, Case
from detectors.keyed import Keyed, compound_key
from detectors.text import PromptBatch
from detectors.thresholds import Thresholds
from schemas.verdicts import Reason

POINTS = (1, 2, 3, 4, 6, 8, 10, 13, 17, 22, 29, 38, 50, 66, 87, 115, 152, 200)  # tokens from an end: a hash each
SKETCH = 1 + 2 * len(POINTS)  # bytes: the number of tokens, prefix hashes, suffix hashes
KEPT = 4  # sketches of a principal
ALIKE = 0.75  # of the longer prompt's tokens, that two share at their beginning and end
DECAY = 0.5  # of a run, by every prompt that is like none of those kept
FORGET_S = 3_600.0  # without a near-duplicate, a run is over
PRINCIPALS = 20_000  # of a partition, at about 170 B
ESTABLISHED = 20  # prompts of a principal

_POINTS = np.array(POINTS, np.int64)
_AT_POINT = (0, *POINTS)
_N = len(POINTS)
_FORM = struct.Struct("<dIfQ")


@nb.njit(cache=True, nogil=True)
def _fill(
    tokens: NDArray[np.int32], lengths: NDArray[np.int32], points: NDArray[np.int64], out: NDArray[np.uint8]
) -> None:
    n = len(points)
    for row in range(len(lengths)):
        size = lengths[row]
        out[row, 0] = size
        for end in range(2):
            hashed, at = np.uint64(0), 0
            for i in range(min(size, points[n - 1])):
                token = tokens[row, i] if end == 0 else tokens[row, size - 1 - i]
                hashed = (hashed ^ np.uint64(token + 1)) * np.uint64(0x9E3779B97F4A7C15)
                hashed ^= hashed >> np.uint64(29)
                if i + 1 == points[at]:
                    out[row, 1 + end * n + at] = hashed >> np.uint64(40)
                    at += 1


def sketches(prompts: PromptBatch) -> list[bytes]:
    """A sketch of `SKETCH` bytes for each prompt; empty where there are no tokens."""
    out = np.zeros((len(prompts), SKETCH), np.uint8)
    _fill(prompts.tokens, prompts.lengths, _POINTS, out)
    return [row.tobytes() if row[0] else b"" for row in out]


class Edit(NamedTuple):
    """How one prompt became another: tokens that both begin and end with, and where between that is."""

    shared: float  # part of the longer prompt, 0..1
    place: int  # 0..35: the prefix point up to which they agree, or the suffix point where that is nearer


def compare(one: bytes, other: bytes) -> Edit:
    """The edit between the sketches of two prompts."""
    shortest, longest = min(one[0], other[0]), max(one[0], other[0])
    begins, ends = _agree(one[1 : 1 + _N], other[1 : 1 + _N]), _agree(one[1 + _N :], other[1 + _N :])
    first, last = min(_AT_POINT[begins], shortest), min(_AT_POINT[ends], shortest)
    return Edit(min(first + last, shortest) / longest, begins if begins <= ends else _N + ends)


def _agree(one: bytes, other: bytes) -> int:
    """How many bytes are the same, from the first on."""
    if one[0] != other[0]:
        return 0
    differ = int.from_bytes(one, "big") ^ int.from_bytes(other, "big")
    return _N - (differ.bit_length() + 7) // 8


class _Past(NamedTuple):
    """A principal's latest sketches and its near-duplicates."""

    edited: float = 0.0  # time of the latest near-duplicate
    prompts: int = 0
    run: float = 0.0  # near-duplicates, less DECAY for each other prompt; 0: the run is over
    places: int = 0  # a bit each
    kept: bytes = b""  # sketches, the latest first

    def pack(self) -> bytes:
        return _FORM.pack(self.edited, self.prompts, self.run, self.places) + self.kept

    @classmethod
    def unpack(cls, value: bytes) -> "_Past":
        edited, prompts, run, places = _FORM.unpack_from(value)
        return cls(edited, prompts, run, places, value[_FORM.size :])


class Probing:
    """A StreamDetector. The score, at the verdict, is the length of the principal's run of near-duplicates."""

    name = "probing"
    version = "1"
    kinds = ("probing",)

    def __init__(self, thresholds: Thresholds, principals: int = PRINCIPALS) -> None:
        self._thresholds = thresholds
        self._principals = Keyed("p/", principals, bytes, bytes)
        self._taken: tuple[Case, str, _Past, Answer] | None = None

    @property
    def evicted(self) -> int:
        """Principals dropped by this process for want of room."""
        return self._principals.evicted

    def score(self, case: Case) -> Answer:
        """The run so far; a Reason as it passes a multiple of the threshold; None without a text."""
        if not case.prompt.sketch:
            return None
        self._taken = self._take(case)
        return self._taken[3]

    def learn(self, case: Case, flagged: bool) -> None:
        """Count the prompt, flagged or not: the climb is what is counted here."""
        if not case.prompt.sketch:
            return
        taken, self._taken = self._taken, None
        _, key, past, _ = taken if taken is not None and taken[0] is case else self._take(case)
        self._principals.put(key, past.pack(), past.prompts >= ESTABLISHED)

    def forget(self, tenant: str, principal: str) -> None:
        """See `Forgetful.forget`."""
        self._principals.drop(compound_key(tenant, principal))

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """See `StreamDetector.changes`."""
        return self._principals.changes()

    def snapshot(self) -> dict[str, bytes]:
        """See `StreamDetector.snapshot`."""
        return self._principals.snapshot()

    def load(self, key: str, value: bytes | None) -> None:
        """See `StreamDetector.load`."""
        self._taken = None
        self._principals.load(key, value)

    def _take(self, case: Case) -> tuple[Case, str, _Past, Answer]:
        """The case in its principal's past, and the answer; changes nothing."""
        key = compound_key(case.request.tenant_id, case.request.principal_hash)
        value = self._principals.get(key)
        past = _Past.unpack(value) if value else _Past()
        sketch = case.prompt.sketch
        kept = [past.kept[at : at + SKETCH] for at in range(0, len(past.kept), SKETCH)]
        if sketch in kept:  # a retry
            return case, key, past._replace(prompts=past.prompts + 1), past.run
        place = next((edit.place for other in kept if (edit := compare(sketch, other)).shared >= ALIKE), None)
        run = past.run if case.time - past.edited < FORGET_S else 0.0
        run = run + 1 if place is not None else max(0.0, run - DECAY)
        past = _Past(
            edited=past.edited if place is None else case.time,
            prompts=past.prompts + 1,
            run=run,
            places=(past.places if run > 1 else 0) | (1 << place if place is not None else 0),
            kept=(sketch + past.kept)[: KEPT * SKETCH],
        )
        return case, key, past, past.run if place is None else self._answer(past)

    def _answer(self, past: _Past) -> Answer:
        limit, places = self._thresholds["probing.run"], past.places.bit_count()
        # Said at every multiple of the limit: context does not need a finding for each request.
        if past.run < limit or past.run % limit >= 1 or places < self._thresholds["probing.places"]:
            return past.run
        return Reason(
            detector=self.name,
            detector_version=self.version,
            score=past.run,
            threshold=limit,
            threshold_version=self._thresholds.version,
            flagged=True,
            kind="probing",
            stage="sketch",
            seen=float(places),
            note=f"a run of near-duplicate prompts of one caller, edited at {places} places",
        )
