"""The windows of one partition in fixed tables: first sightings in a ring, what came back in a 4-way table.

Both are checkpointed as what changed: blocks of the ring, and buckets of the table. The ring's index is made from
the ring, so it is no state.
"""

import struct
from collections.abc import Iterator

import numpy as np

from detectors.discovery import kernel

BLOCK = 1_024  # first sightings a state record
_ADDED = struct.Struct("<Q")
_RING, _TABLE = "s/", "t/"


class Memory:
    """`windows` places in the table and twice as many in the ring: 84 B a window in all, taken as they fill up."""

    def __init__(self, windows: int) -> None:
        """`windows`: a power of two, 4 or more."""
        if windows < kernel.WAYS or windows & (windows - 1):
            raise ValueError(f"{windows} windows: not a power of two")
        self.keys = np.zeros(windows, np.uint32)
        self.rows = np.zeros((windows, kernel.COLUMNS), np.uint32)
        self.sightings = np.zeros(2 * windows, np.uint32)
        self.index = np.zeros(4 * windows, np.int32)
        self.dirty = np.zeros(windows // kernel.WAYS, np.bool_)
        self.lost = np.zeros(2, np.int64)  # evicted, and refused because all places were established
        self.added = 0  # first sightings so far
        self._block = min(BLOCK, 2 * windows)
        self._written: dict[int, int] = {}  # block -> `added` when it was written last
        self._stored = 0  # `added` at the last call of `changes`
        self._indexed = True

    @property
    def nbytes(self) -> int:
        """Of all arrays."""
        arrays = (self.keys, self.rows, self.sightings, self.index, self.dirty)
        return sum(array.nbytes for array in arrays)

    def ready(self) -> None:
        """Make the index after a load; to be called before the arrays are used."""
        if not self._indexed:
            kernel.rebuild(self.sightings, self.added, self.index)
            self._indexed = True

    def changes(self) -> Iterator[tuple[str, bytes]]:
        """State records that changed since the last call."""
        for block in self._blocks_since(self._stored):
            yield f"{_RING}{block}", self._ring_record(block)
        self._stored = self.added
        for bucket in np.flatnonzero(self.dirty).tolist():
            yield f"{_TABLE}{bucket}", self._table_record(bucket)
        self.dirty[:] = False

    def snapshot(self) -> dict[str, bytes]:
        """All state records."""
        state = {f"{_RING}{block}": self._ring_record(block) for block in sorted(self._blocks_since(0))}
        used = np.flatnonzero(self.keys.reshape(-1, kernel.WAYS).any(axis=1))
        return state | {f"{_TABLE}{bucket}": self._table_record(bucket) for bucket in used.tolist()}

    def load(self, key: str, value: bytes) -> bool:
        """Take over a state record; False if it is none of these."""
        number = int(key[len(_RING) :]) if key.startswith((_RING, _TABLE)) else 0
        if key.startswith(_RING):
            (added,) = _ADDED.unpack_from(value)
            at = number * self._block
            self.sightings[at : at + self._block] = np.frombuffer(value, np.uint32, offset=_ADDED.size)
            self._stored = self.added = max(self.added, added)
            self._indexed = False
        elif key.startswith(_TABLE):
            at = number * kernel.WAYS
            both = np.frombuffer(value, np.uint32)
            self.keys[at : at + kernel.WAYS] = both[: kernel.WAYS]
            self.rows[at : at + kernel.WAYS] = both[kernel.WAYS :].reshape(kernel.WAYS, kernel.COLUMNS)
        else:
            return False
        return True

    def _blocks_since(self, added: int) -> set[int]:
        size = len(self.sightings)
        first = max(added, self.added - size)
        begin = first // self._block * self._block
        return {n % size // self._block for n in range(begin, self.added, self._block) if self.added > first}

    def _ring_record(self, block: int) -> bytes:
        at = block * self._block
        return _ADDED.pack(self._last_added(block)) + self.sightings[at : at + self._block].tobytes()

    def _last_added(self, block: int) -> int:
        """How many had been added when this block was last written to: equal however often it was stored."""
        size = len(self.sightings)
        begin = self.added // size * size + block * self._block
        if begin >= self.added:
            begin -= size
        return min(self.added, begin + self._block)

    def _table_record(self, bucket: int) -> bytes:
        rows = slice(bucket * kernel.WAYS, (bucket + 1) * kernel.WAYS)
        return self.keys[rows].tobytes() + self.rows[rows].tobytes()
