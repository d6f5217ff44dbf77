"""What a lane runs on one partition: state that is a function of the log, effects with deterministic ids.

A lane (streams/lane.py) owns the I/O: it reads records, applies them, publishes the outputs, writes the
changed keys and the marker as one checkpoint, and reloads them. Replay runs the same processors on a file.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from schemas.codec import Record

__all__ = ["OneByOne", "Output", "Processor", "Record"]


class Output(NamedTuple):
    """A record to publish. `partition` None: by the key's hash."""

    topic: str
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None


class Processor(Protocol):
    """One partition's judgement, without I/O."""

    offset: int  # next input offset: records before it are skipped as done
    counters: Counter[str]  # part of the state; `name.label.label`, as streams/metrics.py counts them

    def apply(self, records: Sequence[Record]) -> list[Output]:
        """Take records in offset order; the outputs and the state do not depend on how they are batched."""

    def waiting(self) -> bool:
        """Whether something expires with stream time alone, so that an idle partition needs a tick."""

    def holds(self) -> Mapping[str, int]:
        """Sizes of the state, by gauge (`name.label`)."""

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """Keys changed since the last call (None: gone), the marker last. Synchronous: one moment."""

    def load(self, key: bytes, value: bytes | None) -> None:
        """Take over one checkpoint record, in log order."""

    def loaded(self) -> None:
        """All of the checkpoint has been loaded."""

    def snapshot(self) -> dict[bytes, bytes]:
        """The whole state as checkpoint records: equal snapshots are equal states."""


class OneByOne(ABC):
    """What processors have in common that take records one after the other."""

    def __init__(self) -> None:
        self.offset = 0
        self.time_ms = 0
        self.counters: Counter[str] = Counter()
        self._out: list[Output] = []

    def apply(self, records: Sequence[Record]) -> list[Output]:
        """See `Processor.apply`."""
        for record in records:
            if record.offset >= self.offset:
                self.offset = record.offset + 1
                self._take(record)
        out, self._out = self._out, []
        return out

    @abstractmethod
    def _take(self, record: Record) -> None:
        """Take the next record of the log; what is to be published goes to `_out`."""
