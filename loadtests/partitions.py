"""The detect lane as it is deployed: several partitions, each with a state of its own, over one file of events."""

from collections.abc import Callable, Sequence
from zlib import crc32

import msgspec

from detectors.processor import Output, Record
from streams.replay import Applies


class _Of(msgspec.Struct):
    principal_hash: str = ""


_decode = msgspec.json.Decoder(_Of).decode


class Partitions:
    """Stands for one processor (`streams.replay.Applies`): records go where their principal's hash sends them.

    As a gateway that keys events by `principal_hash` would have it; ticks go to all, and what cannot be read to the
    first.
    """

    def __init__(self, make: Callable[[int], Applies], partitions: int) -> None:
        self._parts = [make(partition) for partition in range(partitions)]

    def apply(self, records: Sequence[Record]) -> list[Output]:
        """What all partitions say of the records, one partition after the other."""
        shares: list[list[Record]] = [[] for _ in self._parts]
        for record in records:
            if record.value:
                shares[self.partition_of(record.value)].append(record)
            else:
                for share in shares:
                    share.append(record)
        return [output for part, share in zip(self._parts, shares, strict=True) for output in part.apply(share)]

    def partition_of(self, value: bytes) -> int:
        """The partition of an event's bytes."""
        try:
            principal = _decode(value).principal_hash
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return 0
        return crc32(principal.encode("utf-8", "surrogatepass")) % len(self._parts)
