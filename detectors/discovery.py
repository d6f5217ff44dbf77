"""Unseen triggers from the stream: the same odd beginning or end under many different prompts.

A first level, within one partition: of prompts that `novelty` finds odd, the first and last words are remembered,
each with the distinct bodies that it was glued to. One odd prompt is weak evidence, and one caller may have an odd
template; one odd string of several callers under many different bodies is what a universal trigger looks like.
Findings are keyed by the window's fingerprint, so that the fleet lane adds up what several partitions see.
"""

import struct
from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple

from detectors.contract import Answer, Case
from detectors.keyed import Keyed
from detectors.thresholds import Thresholds
from schemas.verdicts import Reason

WINDOW_WORDS = 5
MOST_BODIES = 12  # remembered of a window; more make no difference
FORGET_S = 3_600.0  # without a use, a window begins anew
CAPACITY = 50_000  # windows of a partition, at about 120 B
_DIGEST = 8
_FACTS = struct.Struct(f"{_DIGEST}s{_DIGEST}s{_DIGEST}s")  # fingerprints of head, tail and body
_PRINCIPAL = 4  # bytes of its digest, behind each body
_USE = _DIGEST + _PRINCIPAL
_USED = struct.Struct("<d")


def windows_of(head: str, tail: str) -> bytes:
    """Fingerprints of a prompt's first and last words, and of what lies between: `PromptFacts.windows`."""
    first, last = head.lower().split(), tail.lower().split()
    body = first[WINDOW_WORDS:-WINDOW_WORDS] if head == tail else first[WINDOW_WORDS:] + last[:-WINDOW_WORDS]
    return _FACTS.pack(_digest(first[:WINDOW_WORDS]), _digest(last[-WINDOW_WORDS:]), _digest(body))


def _digest(words: list[str]) -> bytes:
    return blake2b("\x00".join(words).encode("utf-8", "surrogatepass"), digest_size=_DIGEST).digest()


class _Window(NamedTuple):
    """When it was used last, and the bodies it was seen under, each with its first caller, oldest first."""

    used: float
    bodies: tuple[bytes, ...]

    @property
    def callers(self) -> int:
        """Distinct ones among those remembered."""
        return len({body[_DIGEST:] for body in self.bodies})

    def pack(self) -> bytes:
        return _USED.pack(self.used) + b"".join(self.bodies)

    @classmethod
    def unpack(cls, state: bytes) -> "_Window":
        (used,) = _USED.unpack_from(state)
        rest = state[_USED.size :]
        return cls(used, tuple(rest[i : i + _USE] for i in range(0, len(rest), _USE)))


class Discovery:
    """A StreamDetector. Judges at the verdict; the score is the number of distinct bodies under a window."""

    name = "discovery"
    version = "1"
    kinds = ("unseen_trigger",)

    def __init__(self, thresholds: Thresholds, capacity: int = CAPACITY) -> None:
        self._thresholds = thresholds
        self._windows = Keyed("w/", capacity, _Window.pack, _Window.unpack)

    @property
    def evicted(self) -> int:
        """Windows dropped by this process for want of room."""
        return self._windows.evicted

    def score(self, case: Case) -> Answer:
        """Distinct bodies under the better known of the prompt's two windows; None without a text."""
        if "novelty" not in case.prompt.scores:
            return None
        used = self._used(case)
        if not used:
            return 0.0
        window, state = max(used.items(), key=lambda item: (item[1].callers > 1, len(item[1].bodies)))
        bodies, limit = len(state.bodies), self._thresholds["discovery.bodies"]
        if bodies < limit or state.callers < self._thresholds["discovery.callers"]:
            return float(bodies)
        return Reason(
            detector=self.name,
            detector_version=self.version,
            score=float(bodies),
            threshold=limit,
            threshold_version=self._thresholds.version,
            flagged=True,
            kind="unseen_trigger",
            stage="window",
            seen=float(bodies),
            window=window,
            note=f"the same odd {WINDOW_WORDS} words, {bodies} or more prompts, {state.callers} or more callers",
        )

    def learn(self, case: Case, flagged: bool) -> None:
        """Remember the windows of an odd prompt, flagged or not: an attack is what is counted here."""
        for window, state in self._used(case).items():
            self._windows.put(window, state, len(state.bodies) > 1)

    def _used(self, case: Case) -> dict[str, _Window]:
        """The prompt's windows with this use in them; none where the prompt is not odd."""
        facts = case.prompt
        if not facts.windows or facts.scores.get("novelty", 0.0) < self._thresholds["discovery.oddness"]:
            return {}
        head, tail, body = _FACTS.unpack(facts.windows)
        caller = blake2b(case.request.principal_hash.encode(), digest_size=_PRINCIPAL).digest()
        used = {}
        for window in (head.hex(), tail.hex()):
            before = self._windows.get(window)
            bodies = before.bodies if before and case.time - before.used < FORGET_S else ()
            if not any(known.startswith(body) for known in bodies):
                bodies = (*bodies, body + caller)[-MOST_BODIES:]
            used[window] = _Window(case.time, bodies)
        return used

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """See `StreamDetector.changes`."""
        return self._windows.changes()

    def snapshot(self) -> dict[str, bytes]:
        """See `StreamDetector.snapshot`."""
        return self._windows.snapshot()

    def load(self, key: str, value: bytes | None) -> None:
        """See `StreamDetector.load`."""
        self._windows.load(key, value)
