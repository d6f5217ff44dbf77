"""Bounded keyed state with eviction that protects established keys.

Two regions, as in the 2Q buffer policy (Johnson and Shasha, VLDB 1994). A key begins *on probation* and moves to
the *established* region once its detector says that its baseline is worth keeping. A flood of new keys turns over
the probation region only; an established key can be displaced only by one that has earned the same standing. Within
a region the least recently used key goes first. Nothing depends on hash order or on how cases were batched, and
the order survives a checkpoint, because every value is stored with its rank of use.
"""

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Generic, TypeVar

T = TypeVar("T")
_HEADER = struct.Struct("<QB")  # rank of use, established
_LONGEST_KEY = 160


class Keyed(Generic[T]):
    """Up to `capacity` keys, a quarter of them on probation.

    Values are what the detector works with: packed bytes where keys are many (`pack` and `unpack` are `bytes`
    then), live objects where they are few; those are packed when the state is asked for, and whoever changes one
    puts it.
    `prefix` tells this store's keys from a sibling's in one detector's snapshot; it must not be a prefix of theirs.
    `evicted` counts the keys lost by this process; it is a metric, not state.
    """

    def __init__(
        self, prefix: str, capacity: int, pack: Callable[[T], bytes], unpack: Callable[[bytes], T]
    ) -> None:
        if capacity < 4:
            raise ValueError(f"a capacity of {capacity} leaves no room for a probation region")
        self.prefix = prefix
        self.evicted = 0
        self._pack, self._unpack = pack, unpack
        self._room = (capacity // 4, capacity - capacity // 4)  # on probation, established
        self._regions: tuple[OrderedDict[str, tuple[int, T]], ...] = (OrderedDict(), OrderedDict())
        self._uses = 0
        self._changed: dict[str, None] = {}
        self._in_order = True

    def __len__(self) -> int:
        return len(self._regions[0]) + len(self._regions[1])

    def get(self, key: str) -> T | None:
        """The value, without counting as a use."""
        found = self._regions[1].get(key) or self._regions[0].get(key)
        return found[1] if found else None

    def put(self, key: str, value: T, established: bool) -> list[str]:
        """Set a key's value; the keys that had to go for it. An established key stays established."""
        if not self._in_order:
            self._restore_order()
        probation, kept = self._regions
        established = established or key in kept
        if established:
            probation.pop(key, None)
        region = self._regions[established]
        self._uses += 1
        region[key] = self._uses, value
        region.move_to_end(key)
        self._changed[key] = None
        gone = []
        while len(region) > self._room[established]:
            gone.append(region.popitem(last=False)[0])
            self._changed[gone[-1]] = None
            self.evicted += 1
        return gone

    def items(self) -> Iterator[tuple[str, T]]:
        """All keys with their values, without counting as a use."""
        for region in self._regions:
            for key, (_, value) in region.items():
                yield key, value

    def drop(self, key: str) -> None:
        """Forget a key."""
        for region in self._regions:
            if region.pop(key, None) is not None:
                self._changed[key] = None

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """Prefixed keys that changed since the last call, None for those that went."""
        changed, self._changed = self._changed, {}
        for key in changed:
            yield self.prefix + key, self._packed(key)

    def snapshot(self) -> dict[str, bytes]:
        """All prefixed keys."""
        return {self.prefix + key: self._packed(key) or b"" for region in self._regions for key in region}

    def load(self, key: str, value: bytes | None) -> bool:
        """Take over one prefixed key (None: it is gone), in any order; False if it is not of this store."""
        if not key.startswith(self.prefix):
            return False
        key = key[len(self.prefix) :]
        probation, kept = self._regions
        probation.pop(key, None)
        kept.pop(key, None)
        if value is None:
            return True
        rank, established = _HEADER.unpack_from(value)
        (kept if established else probation)[key] = rank, self._unpack(value[_HEADER.size :])
        if rank > self._uses:
            self._uses = rank
        self._in_order = False
        return True

    def _packed(self, key: str) -> bytes | None:
        for established, region in enumerate(self._regions):
            if key in region:
                rank, value = region[key]
                return _HEADER.pack(rank, established) + self._pack(value)
        return None

    def _restore_order(self) -> None:
        for region in self._regions:
            ranks = {key: rank for key, (rank, _) in region.items()}
            for key in sorted(ranks, key=ranks.__getitem__):
                region.move_to_end(key)
        self._in_order = True


@lru_cache(maxsize=16_384)
def compound_key(*parts: str) -> str:
    """One unambiguous key of bounded length: parts are measured, not joined, so that no part can imitate two."""
    key = "".join(f"{len(part)}:{part}" for part in parts)
    if len(key) <= _LONGEST_KEY and key.isascii():
        return key
    return "#" + hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
