"""The alerts that a campaign stands for: what it has told them, each in their own partition of the log."""

import msgspec

_PREFIX = b"inhibition/"


class Inhibition(msgspec.Struct, gc=False):
    """What a campaign has told an alert, or one to come."""

    by: str
    until_ms: int
    offset: int  # of the telling: the order of eviction


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Inhibition).decode


class Inhibitions:
    """By fingerprint of the alert; the `most` that were told last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._told: dict[str, Inhibition] = {}  # in the order of the last telling
        self._dirty: set[str] = set()

    def tell(self, identity: str, told: Inhibition, now_ms: int) -> None:
        """Take what a campaign says at `now_ms`; forget what has lapsed, or is too much."""
        self._told.pop(identity, None)
        self._told[identity] = told
        self._dirty.add(identity)
        while self._told:
            first, oldest = next(iter(self._told.items()))
            if oldest.until_ms > now_ms and len(self._told) <= self._most:
                break
            del self._told[first]
            self._dirty.add(first)

    def over(self, identity: str, now_ms: int) -> str:
        """The campaign that stands for an alert; empty: none."""
        told = self._told.get(identity)
        return told.by if told and told.until_ms > now_ms else ""

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """State records that changed since the last call; None: gone."""
        dirty, self._dirty = sorted(self._dirty), set()
        return [(_key(name), _encode(self._told[name]) if name in self._told else None) for name in dirty]

    def snapshot(self) -> list[tuple[bytes, bytes]]:
        """The whole state."""
        return [(_key(name), _encode(told)) for name, told in sorted(self._told.items())]

    def load(self, key: bytes, value: bytes | None) -> bool:
        """Take over a record of `changes`; False when it is not one of them."""
        if not key.startswith(_PREFIX):
            return False
        identity = key.removeprefix(_PREFIX).decode()
        self._told.pop(identity, None)
        if value is not None:
            self._told[identity] = _decode(value)
        return True

    def loaded(self) -> None:
        """Bring what was loaded into the order of its telling."""
        self._told = dict(sorted(self._told.items(), key=lambda item: item[1].offset))


def _key(identity: str) -> bytes:
    return _PREFIX + identity.encode()
