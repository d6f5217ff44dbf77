"""One principal's habit of scores below what its prompts get: each may be chance, a run of them is not."""

import struct
from dataclasses import dataclass

from detectors.repeats import is_repeat

ALLOWANCE = 1.75  # standard deviations below the expected that a score may have, beyond the principal's usual
CLIP = 2.5  # standard deviations that one score can count for
SHRINK = 10.0  # scores that stand for a usual of 0
MEMORY = 200.0  # scores over which the usual forgets
MOST = 16.0  # a sum that has said enough

_FORM = struct.Struct("<3fQ")


@dataclass(slots=True)
class Habit:
    """A one-sided CUSUM (Page, Biometrika 1954) against the principal's own usual; 20 bytes packed.

    The usual begins at 0 and moves with the scores: a caller whose one topic the model misjudges is soon its own
    measure, and a forger must be the further off the fewer scores it has sent.
    """

    seen: float = 0.0
    usual: float = 0.0  # standard deviations below the expected
    low: float = 0.0  # the sum
    likeness: int = 0  # of the last prompt (detectors/contract.py)

    @classmethod
    def unpack(cls, value: bytes) -> "Habit":
        """What `pack` wrote."""
        return cls(*_FORM.unpack(value))

    def pack(self) -> bytes:
        """Packed little-endian."""
        return _FORM.pack(self.seen, self.usual, self.low, self.likeness)

    def add(self, below: float, likeness: int) -> None:
        """Add a score, `below` standard deviations below the expected; a prompt tried again counts once."""
        tried_again, self.likeness = is_repeat(likeness, self.likeness), likeness
        if not tried_again:
            excess = min(CLIP, below - max(0.0, self.usual) - ALLOWANCE)
            self.low = min(MOST, max(0.0, self.low + excess))

    def learn(self, below: float) -> None:
        """Let the score into the usual."""
        self.seen = min(self.seen + 1, MEMORY)
        self.usual += (max(-CLIP - ALLOWANCE, min(CLIP + ALLOWANCE, below)) - self.usual) / (self.seen + SHRINK)
