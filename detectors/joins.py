"""Request, route and outcomes of one request, brought together: bounded in stream time and in number.

An entry *waits* until request and route have met (or the grace is over), then it is *settled* and kept a
while for its outcomes. Order matters: what expires first was opened first, after a restart too.
"""

from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from detectors.contract import PromptFacts
from schemas.events import Outcome, Request, Route

Key = tuple[str, str]  # principal_hash, request_id: a request id alone may be the client's choice


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """What is known of one request so far."""

    opened_ms: int
    opened_offset: int
    request: Request | None = None  # without text
    request_offset: int = 0
    facts: PromptFacts | None = None
    likeness: int = 0  # of the prompt, once it is settled: what outcomes are compared by
    route: Route | None = None
    outcomes: list[Outcome] = []  # that came before the verdict
    seen: list[
        str
    ] = []  # event ids of routes and outcomes taken in, the last MOST_SEEN: one published twice is one
    flagged: bool = False  # by its verdict
    settled_ms: int = 0
    settled_offset: int = 0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode
_decode_key = msgspec.msgpack.Decoder(Key).decode
MOST_SEEN = 32
_WAITING, _SETTLED = b"w/", b"s/"


class Joins:
    """Entries by key, waiting ones and settled ones, each in the order in which they expire."""

    def __init__(self) -> None:
        # No plain dictionaries: those look for their first key among all that went before it.
        self.waiting: OrderedDict[Key, Entry] = OrderedDict()
        self.settled: OrderedDict[Key, Entry] = OrderedDict()
        self._dirty: set[Key] = set()
        self._stored: dict[Key, bytes] = {}  # state keys that a checkpoint has written, by their prefix

    def is_new(self, key: Key, entry: Entry, event_id: str) -> bool:
        """Whether a route or an outcome of this entry was not taken in before; from now on it was."""
        if event_id in entry.seen:
            return False
        entry.seen = [*entry.seen, event_id][-MOST_SEEN:]
        self._dirty.add(key)
        return True

    def open(self, key: Key, time_ms: int, offset: int) -> Entry:
        """Start waiting. The key must be in neither table: drop an older use of it first."""
        entry = self.waiting[key] = Entry(opened_ms=time_ms, opened_offset=offset)
        self._dirty.add(key)
        return entry

    def touch(self, key: Key) -> None:
        """An entry was changed in place."""
        self._dirty.add(key)

    def settle(self, key: Key, time_ms: int, offset: int) -> None:
        """The verdict was given: keep what outcomes need, drop the rest."""
        entry = self.waiting.pop(key)
        entry.settled_ms, entry.settled_offset = time_ms, offset
        entry.likeness = entry.facts.likeness if entry.facts is not None else 0
        entry.facts = None
        entry.outcomes = []
        self.settled[key] = entry
        self._dirty.add(key)

    def drop(self, key: Key) -> None:
        """Forget an entry."""
        self.waiting.pop(key, None)
        self.settled.pop(key, None)
        self._dirty.add(key)

    def forget(self, tenant: str, principal: str) -> int:
        """Drop all entries of an erased principal; how many there were."""
        gone = [
            key
            for table in (self.waiting, self.settled)
            for key, entry in table.items()
            if key[0] == principal and _tenant(entry) == tenant
        ]
        for key in gone:
            self.drop(key)
        return len(gone)

    def overdue(self, limit_ms: int, most: int) -> Iterator[Key]:
        """Waiting entries opened at or before `limit_ms`, or beyond `most` in number, oldest first."""
        while self.waiting:
            key = next(iter(self.waiting))
            if self.waiting[key].opened_ms > limit_ms and len(self.waiting) <= most:
                return
            yield key  # the caller settles or drops it

    def forget_settled(self, limit_ms: int, most: int) -> int:
        """Drop settled entries that are older than `limit_ms` or too many; how many were cut by number."""
        cut = 0
        while self.settled:
            key = next(iter(self.settled))
            if self.settled[key].settled_ms > limit_ms:
                if len(self.settled) <= most:
                    break
                cut += 1
            del self.settled[key]
            self._dirty.add(key)
        return cut

    def changes(self) -> Iterator[tuple[bytes, bytes | None]]:
        """State records that changed; what came and went since the last call is never written."""
        for key in self._dirty:
            waiting = self.waiting.get(key)
            entry = waiting or self.settled.get(key)
            prefix = b"" if entry is None else _WAITING if waiting is not None else _SETTLED
            stored = self._stored.pop(key, b"")
            if stored and stored != prefix:
                yield _state_key(stored, key), None
            if entry is not None:
                yield _state_key(prefix, key), _encode(entry)
                self._stored[key] = prefix
        self._dirty = set()

    def load(self, state_key: bytes, value: bytes | None) -> bool:
        """Take over a record of `changes`; False when it is not one of them."""
        prefix = state_key[:2]
        if prefix not in (_WAITING, _SETTLED):
            return False
        key = _decode_key(state_key[2:])
        table = self.waiting if prefix == _WAITING else self.settled
        if value is None:
            table.pop(key, None)
            if self._stored.get(key) == prefix:
                del self._stored[key]
        else:
            table[key] = _decode(value)
            self._stored[key] = prefix
        return True

    def loaded(self) -> None:
        """Bring what was loaded into the order of its expiry."""
        self.waiting = OrderedDict(sorted(self.waiting.items(), key=lambda item: item[1].opened_offset))
        self.settled = OrderedDict(
            sorted(self.settled.items(), key=lambda item: (item[1].settled_offset, item[1].opened_offset))
        )

    def snapshot(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries as state records."""
        for prefix, table in ((_WAITING, self.waiting), (_SETTLED, self.settled)):
            for key, entry in table.items():
                yield _state_key(prefix, key), _encode(entry)


def _tenant(entry: Entry) -> str:
    return next(event.tenant_id for event in (entry.request, entry.route, *entry.outcomes) if event is not None)


def _state_key(prefix: bytes, key: Key) -> bytes:
    return prefix + _encode(key)
