"""The chain of thresholds: a link for whatever was proposed, decided or moved, each covering the one before it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

import msgspec

from detectors.ratchet import Move
from schemas.codec import stable_id
from schemas.signatures import linked
from schemas.thresholds import IN_FORCE, ThresholdScope, ThresholdUpdate, looser

MOST_ENTRIES = 4_096
MOST_PAST = 256  # values of a threshold that a rollback can reach

_HEAD, _ENTRY = b"head", b"e/"

Cause = Literal["auto", "manual", "rollback", "expiry"]
LinkMode = Literal["proposed", "shadow", "active", "rolled_back", "pinned", "rejected"]


class Held(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """A value that people hold, until they let go or it expires (milliseconds of stream time)."""

    value: float
    until_ms: int | None = None


class Proposal(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """What waits for approval. `version` is its latest link."""

    version: int
    at_ms: int
    value: float
    cause: Cause
    actor: str
    reason: str
    move: Move | None = None  # the evidence's
    approvers: list[str] = []
    until_ms: int | None = None
    cost_usd_per_day: float | None = None


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One threshold."""

    scope: ThresholdScope
    parameter: str
    value: float  # in force
    held: Held | None = None
    proposal: Proposal | None = None
    rejected: tuple[float, int] | None = None  # a proposal's value, and when
    shadow: float | None = None  # last value published beside
    past: list[tuple[int, float]] = []  # version and value in force from it on


class Head(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """The chain's end."""

    version: int = 0
    hash: str = ""
    frozen: bool = False


_encode = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode
_decode_head = msgspec.msgpack.Decoder(Head).decode


class Chain:
    """State: its head, and an entry for each threshold that was ever moved."""

    def __init__(self, key: bytes, key_id: str) -> None:
        """`key`: that signs links (`schemas.signatures.derived`)."""
        self.head = Head()
        self.links: list[ThresholdUpdate] = []  # made since they were last taken
        self.entries: dict[str, Entry] = {}
        self.touched: dict[str, None] = {}  # entries that were linked or loaded since they were last taken; derived
        self._key = key
        self._key_id = key_id
        self._changed: dict[bytes, None] = {}

    def find(self, scope: ThresholdScope, parameter: str) -> Entry | None:
        """The entry of a threshold, if it was ever moved."""
        return self.entries.get(entry_name(scope, parameter))

    def entry(self, scope: ThresholdScope, parameter: str, base: float) -> Entry | None:
        """The entry of a threshold, to be changed; a new one that begins at `base`, None where there is no room."""
        name = entry_name(scope, parameter)
        entry = self.entries.get(name)
        if entry is None:
            if len(self.entries) >= MOST_ENTRIES:
                return None
            entry = self.entries[name] = Entry(scope=scope, parameter=parameter, value=base, past=[(0, base)])
        self._changed[_ENTRY + name.encode()] = None
        return entry

    def freeze(self, frozen: bool) -> None:
        """Stop all automatic moves, or let them go on; whoever asks makes the link of it."""
        self.head = msgspec.structs.replace(self.head, frozen=frozen)

    def link(
        self, entry: Entry, value: float, mode: LinkMode, cause: Cause, now_ms: int, *, move: Move | None = None,
        actor: str = "feedback", approver: str = "", reason: str, until_ms: int | None = None,
        cost: float | None = None, decision_id: str = "",
    ) -> None:  # fmt: skip
        """Make the next link: what it says of an entry comes true with it."""
        head, name = self.head, entry_name(entry.scope, entry.parameter)
        update = ThresholdUpdate(
            update_id=update_id(decision_id, name) if decision_id else stable_id("update", head.hash, name, mode),
            scope=entry.scope,
            parameter=entry.parameter,
            old_value=entry.value,
            new_value=value,
            direction="loosen" if looser(entry.parameter, value, entry.value) else "tighten",
            version=head.version + 1,
            mode=mode,
            cause=cause,
            time=_time(now_ms),
            actor=actor,
            approver=approver[:256],
            reason=reason[:1024],
            cost_usd_per_day=cost,
            expires_at=None if until_ms is None else _time(until_ms),
        )
        if move is not None:
            update = msgspec.structs.replace(update, **_evidence(move))
        update = linked(update, head.hash, self._key, self._key_id)
        self.head = Head(version=update.version, hash=update.hash, frozen=head.frozen)
        self.links.append(update)
        if mode in IN_FORCE:
            entry.value = value
            entry.past = [*entry.past, (update.version, value)][-MOST_PAST:]
        self.touched[name] = None
        self._changed |= {_HEAD: None, _ENTRY + name.encode(): None}

    # --- state

    def changes(self) -> Iterator[tuple[bytes, bytes]]:
        """State records that changed since the last call."""
        changed, self._changed = self._changed, {}
        for key in changed:
            yield key, self._packed(key)

    def snapshot(self) -> Iterator[tuple[bytes, bytes]]:
        """The whole state."""
        for key in (_HEAD, *(_ENTRY + name.encode() for name in self.entries)):
            yield key, self._packed(key)

    def load(self, key: bytes, value: bytes) -> bool:
        """Take over a record of `changes`; False when it is not one of them."""
        if key == _HEAD:
            self.head = _decode_head(value)
        elif key.startswith(_ENTRY):
            name = key[2:].decode()
            self.entries[name] = _decode_entry(value)
            self.touched[name] = None
        else:
            return False
        return True

    def _packed(self, key: bytes) -> bytes:
        return _encode(self.head if key == _HEAD else self.entries[key[2:].decode()])


def entry_name(scope: ThresholdScope, parameter: str) -> str:
    """One name for a parameter in a scope."""
    return msgspec.json.encode((parameter, *msgspec.structs.astuple(scope))).decode()


def topic_key(update: ThresholdUpdate) -> bytes:
    """Of the compacted topic: what is in force is not replaced by what is only proposed."""
    state = "force" if update.mode in IN_FORCE else "shadow" if update.mode == "shadow" else "proposed"
    return f"{state}/{entry_name(update.scope, update.parameter)}".encode()


def update_id(decision_id: str, name: str) -> str:
    """Id of the link that a decision makes for the entry of that name: whoever decided waits for it."""
    return stable_id("decision", decision_id, name)


def _evidence(move: Move) -> dict[str, float | int]:
    return {
        "n_trusted": move.n_trusted, "n_principals": move.n_principals, "n_tenants": move.n_tenants,
        "risk_ucb": move.risk_ucb, "e_value": move.e_value, "alpha": move.alpha, "delta": move.delta,
        "epsilon": move.epsilon,
    }  # fmt: skip


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
