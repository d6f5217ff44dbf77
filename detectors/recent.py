"""The ids seen last: what is delivered again is known again, within a bounded memory."""

from collections.abc import Iterator
from hashlib import blake2b

import msgspec

_BLOCK = 256  # ids per state record, so that a checkpoint rewrites only what was added since the last one
_PREFIX = b"recent/"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, list[int]]).decode


class RecentIds:
    """The last `capacity` ids (rounded up to whole blocks), 64 bits each, in a ring: exact in log order."""

    def __init__(self, capacity: int) -> None:
        self._capacity = -(-capacity // _BLOCK) * _BLOCK
        self._added = 0
        self._ring: list[int] = []
        self._known: set[int] = set()
        self._written: dict[int, int] = {}  # block -> how many ids had been added when it was written last
        self._dirty: set[int] = set()
        self._loading: dict[int, tuple[int, list[int]]] = {}

    def add(self, name: str) -> bool:
        """Remember an id; False when it is remembered already."""
        digest = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")
        if digest in self._known:
            return False
        slot = self._added % self._capacity
        if slot == len(self._ring):
            self._ring.append(digest)
        else:
            self._known.discard(self._ring[slot])
            self._ring[slot] = digest
        self._known.add(digest)
        self._added += 1
        block = slot // _BLOCK
        self._written[block] = self._added
        self._dirty.add(block)
        return True

    def changes(self) -> Iterator[tuple[bytes, bytes]]:
        """State records that changed since the last call."""
        dirty, self._dirty = sorted(self._dirty), set()
        return map(self._record, dirty)

    def snapshot(self) -> Iterator[tuple[bytes, bytes]]:
        """The whole state."""
        return map(self._record, sorted(self._written))

    def load(self, key: bytes, value: bytes) -> bool:
        """Take over a record of `changes`; False when it is not one of them."""
        if not key.startswith(_PREFIX):
            return False
        self._loading[int(key.removeprefix(_PREFIX))] = _decode(value)
        return True

    def loaded(self) -> None:
        """All records have been loaded."""
        blocks = sorted(self._loading.items())
        self._written = {block: added for block, (added, _) in blocks}
        self._added = max(self._written.values(), default=0)
        self._ring = [digest for _, (_, digests) in blocks for digest in digests]
        self._known = set(self._ring)
        self._dirty = set()
        self._loading = {}

    def _record(self, block: int) -> tuple[bytes, bytes]:
        digests = self._ring[block * _BLOCK : (block + 1) * _BLOCK]
        return b"%s%d" % (_PREFIX, block), _encode((self._written[block], digests))
