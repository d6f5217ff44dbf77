"""The book of thresholds: what is in force, proposed or held, and the one chain of links that tells how it came so.

A threshold's value is what people hold it at (an override, a pin, a rollback), else what its ratchet says, else
what ships. Whoever moves it, evidence or people, makes a link.
"""

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Literal

import msgspec

from detectors.feedback.rules import Rules
from detectors.ratchet import Move, Ratchet
from detectors.thresholds import DEFAULTS, bounds
from schemas.codec import stable_id
from schemas.signatures import derived, linked
from schemas.thresholds import FROZEN, IN_FORCE, ROUTING, ThresholdDecision, ThresholdScope, ThresholdUpdate, looser

MOST_ENTRIES = 4_096
MOST_PAST = 256  # values of a threshold that a rollback can reach
OPEN_MS = 7 * 86_400_000  # of a proposal that nobody settles
REST_MS = 86_400_000  # after a rejection, before the same value may be proposed again

_HEAD, _ENTRY, _RATCHET = b"head", b"e/", b"n/"

Cause = Literal["auto", "manual", "rollback", "expiry"]
LinkMode = Literal["proposed", "shadow", "active", "rolled_back", "pinned", "rejected"]


class Refused(ValueError):
    """A decision that is not carried out, and why."""


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


class Book:
    """State: the chain's head, an entry for each threshold that was ever moved, the ratchets."""

    def __init__(self, rules: Rules) -> None:
        self.head = Head()
        self.links: list[ThresholdUpdate] = []  # made since they were last taken
        self._rules = rules
        self._key = derived(rules.key, "updates")
        self._entries: dict[str, Entry] = {}
        self.ratchets: dict[str, Ratchet] = {name: Ratchet(config) for name, config in rules.ratchets.items()}
        self._changed: dict[bytes, None] = {}

    def value(self, parameter: str, scope: ThresholdScope | None = None) -> float:
        """What is in force."""
        entry = self._entries.get(entry_name(scope or scope_of(parameter), parameter))
        return entry.value if entry else self._base(parameter)

    def waiting(self) -> bool:
        """Whether something expires with time alone."""
        return any(ratchet.soft for ratchet in self.ratchets.values()) or any(
            entry.proposal or (entry.held and entry.held.until_ms) for entry in self._entries.values()
        )

    def restore_sensitivity(self, value: float) -> None:
        """The judges' sensitivity that the loaded state was reached under."""
        for name, ratchet in self.ratchets.items():
            if ratchet.config.sensitivity != value:
                config = msgspec.structs.replace(ratchet.config, sensitivity=value)
                self.ratchets[name] = Ratchet.restore(config, ratchet.snapshot())

    def set_sensitivity(self, value: float) -> None:
        """The judges' sensitivity as measured. Bets for loosening that trusted them more are void."""
        fell = [name for name, ratchet in self.ratchets.items() if value < ratchet.config.sensitivity]
        self.restore_sensitivity(value)
        for name in fell:
            self.ratchets[name].begin_epoch()
            self.touch()

    def touch(self) -> None:
        """The ratchets were told something."""
        self._changed |= dict.fromkeys(_RATCHET + name.encode() for name in self.ratchets)

    # --- evidence and time

    def advance(self, now_ms: int, measured: bool) -> None:
        """Do what is due: overrides expire, evidence moves or proposes. `measured`: the judges are known."""
        for name in sorted(self._entries):
            entry = self._entries[name]
            if entry.held and entry.held.until_ms is not None and entry.held.until_ms <= now_ms:
                self._release(entry, "expiry", now_ms, "feedback", "the override expired", "")
            if entry.proposal and entry.proposal.at_ms + OPEN_MS <= now_ms:
                reason = "nobody settled it within a week"
                self._link(entry, entry.proposal.value, "rejected", "expiry", now_ms, reason=reason)
                entry.proposal = None
        for parameter, ratchet in self.ratchets.items():
            move = ratchet.decision(now_ms / 1000)
            if move is not None:
                self._on_move(self._entry(scope_of(parameter), parameter), ratchet, move, now_ms, measured)

    def _on_move(self, entry: Entry, ratchet: Ratchet, move: Move, now_ms: int, measured: bool) -> None:
        expiry = move.why == "expiry"  # was agreed to when the step was taken
        trusted = measured or move.why != "evidence"  # judges not measured may tighten, never loosen by themselves
        automatic = expiry or (self._rules.mode == "active" and trusted and entry.held is None)
        if automatic and not self.head.frozen:
            ratchet.apply(move)
            self.touch()
            if entry.proposal is not None and entry.proposal.move is not None:
                entry.proposal = None  # its evidence is about what was in force before
            if entry.held is None and entry.value != ratchet.threshold:
                self._link(
                    entry, ratchet.threshold, "active", "expiry" if expiry else "auto", now_ms, move=move,
                    reason=_REASONS[move.why],
                )  # fmt: skip
        elif self._rules.mode == "shadow":
            if entry.shadow != move.new_value:
                entry.shadow = move.new_value
                self._link(entry, move.new_value, "shadow", "auto", now_ms, move=move, reason=_REASONS[move.why])
        elif self._rules.mode != "observe":
            self._offer(entry, move, now_ms)

    def _offer(self, entry: Entry, move: Move, now_ms: int) -> None:
        open_ = entry.proposal
        if open_ is not None and (open_.move is None or _ends(open_.move) == _ends(move)):
            return  # the same, or a person's, which people settle first
        if entry.rejected and entry.rejected[0] == move.new_value and now_ms < entry.rejected[1] + REST_MS:
            return
        reason = _REASONS[move.why]
        self._link(entry, move.new_value, "proposed", "auto", now_ms, move=move, reason=reason)
        entry.proposal = Proposal(
            version=self.head.version, at_ms=now_ms, value=move.new_value, cause="auto", actor="feedback",
            reason=reason, move=move,
        )  # fmt: skip

    # --- people

    def decide(self, decision: ThresholdDecision, now_ms: int) -> None:
        """Carry a decision out.

        Raises:
            Refused: it may not be, or means nothing.
        """
        getattr(self, f"_{decision.action}")(decision, now_ms)

    def _propose(self, decision: ThresholdDecision, now_ms: int) -> None:
        value, scope = decision.value, _checked_scope(decision)
        if value is None or not math.isfinite(value):
            raise Refused("a proposal needs a value")
        entry = self._entry(scope, decision.parameter)
        if value == entry.value and entry.held is None:
            raise Refused("that value is in force")
        if decision.parameter in DEFAULTS:
            least, most = bounds(decision.parameter)
            if not least <= value <= most:
                raise Refused(f"{decision.parameter} lies between {least:g} and {most:g}")
        until_ms = _ms(decision.expires_at)
        if until_ms is not None and until_ms <= now_ms:
            raise Refused("it would have expired")
        self._link(
            entry, value, "proposed", "manual", now_ms, actor=decision.actor, reason=decision.reason,
            until_ms=until_ms, cost=decision.cost_usd_per_day, decision_id=decision.decision_id,
        )  # fmt: skip
        entry.proposal = Proposal(
            version=self.head.version, at_ms=now_ms, value=value, cause="manual", actor=decision.actor,
            reason=decision.reason, until_ms=until_ms, cost_usd_per_day=decision.cost_usd_per_day,
        )  # fmt: skip

    def _approve(self, decision: ThresholdDecision, now_ms: int) -> None:
        entry, proposal = self._proposed(decision)
        if decision.actor in proposal.approvers:
            raise Refused(f"{decision.actor} has approved it already")
        approvers = [*proposal.approvers, decision.actor]
        beyond = self._rules.beyond(entry.parameter, proposal.value)
        if beyond and not self._rules.approvers:
            raise Refused("it lies beyond its ceiling, which takes two approvers with keys (feedback.approvers)")
        if proposal.at_ms + OPEN_MS <= now_ms:  # decisions are carried out before what is due by time
            raise Refused("nobody settled it within a week")
        if proposal.until_ms is not None and proposal.until_ms <= now_ms:
            raise Refused("it would have expired")
        if beyond and len(approvers) < 2:
            self._link_proposal(entry, proposal, approvers, "proposed", now_ms, decision)
            entry.proposal = msgspec.structs.replace(proposal, version=self.head.version, approvers=approvers)
            return
        if proposal.move is None:
            entry.held = Held(value=proposal.value, until_ms=proposal.until_ms)
        else:
            try:
                move = msgspec.structs.replace(proposal.move, time=now_ms / 1000)
                self.ratchets[entry.parameter].apply(move)
            except ValueError as error:
                raise Refused("the evidence has moved on since") from error
            entry.held = None
            self.touch()
        self._link_proposal(entry, proposal, approvers, "active", now_ms, decision)
        entry.proposal = None

    def _link_proposal(
        self, entry: Entry, proposal: Proposal, approvers: list[str], mode: LinkMode, now_ms: int,
        decision: ThresholdDecision,
    ) -> None:  # fmt: skip
        reason = f"{proposal.reason}; {decision.reason}"
        self._link(
            entry, proposal.value, mode, proposal.cause, now_ms, move=proposal.move, actor=proposal.actor,
            approver=", ".join(approvers), reason=reason, until_ms=proposal.until_ms,
            cost=proposal.cost_usd_per_day, decision_id=decision.decision_id,
        )  # fmt: skip

    def _reject(self, decision: ThresholdDecision, now_ms: int) -> None:
        entry, proposal = self._proposed(decision)
        self._link_proposal(entry, proposal, [decision.actor], "rejected", now_ms, decision)
        entry.rejected, entry.proposal = (proposal.value, now_ms), None

    def _pin(self, decision: ThresholdDecision, now_ms: int) -> None:
        entry = self._entry(_checked_scope(decision), decision.parameter)
        if self._rules.beyond(entry.parameter, entry.value):
            raise Refused(
                "it lies beyond its ceiling, where two approvers hold it as long as they said: propose it"
            )
        entry.held = Held(value=entry.value)
        self._link(
            entry, entry.value, "pinned", "manual", now_ms, actor=decision.actor, reason=decision.reason,
            decision_id=decision.decision_id,
        )  # fmt: skip

    def _unpin(self, decision: ThresholdDecision, now_ms: int) -> None:
        entry = self._entry(_checked_scope(decision), decision.parameter)
        if entry.held is None:
            raise Refused("nobody holds it")
        self._release(entry, "manual", now_ms, decision.actor, decision.reason, decision.decision_id)

    def _freeze(self, decision: ThresholdDecision, now_ms: int) -> None:
        self._set_frozen(True, decision, now_ms)

    def _unfreeze(self, decision: ThresholdDecision, now_ms: int) -> None:
        self._set_frozen(False, decision, now_ms)

    def _set_frozen(self, frozen: bool, decision: ThresholdDecision, now_ms: int) -> None:
        if self.head.frozen == frozen:
            raise Refused("it is so already")
        self.head.frozen = frozen
        entry = self._entry(ThresholdScope(), FROZEN)
        mode: LinkMode = "pinned" if frozen else "active"
        self._link(
            entry, float(frozen), mode, "manual", now_ms,
            actor=decision.actor, reason=decision.reason, decision_id=decision.decision_id,
        )  # fmt: skip

    def _rollback(self, decision: ThresholdDecision, now_ms: int) -> None:
        version = decision.version
        if version is None or version > self.head.version:
            raise Refused("to which version?")
        if decision.parameter:
            names = [entry_name(_checked_scope(decision), decision.parameter)]
        else:
            names = [name for name, entry in self._entries.items() if entry.parameter != FROZEN]
        changes = []
        for name in sorted(names):
            entry = self._entries.get(name)
            if entry is None:
                continue
            before = [value for at, value in entry.past if at <= version]
            if not before:
                raise Refused(f"{entry.parameter} at version {version} is no longer known here: propose its value")
            value = before[-1]
            if value == entry.value:
                continue
            if self._rules.beyond(entry.parameter, value):
                raise Refused(f"{entry.parameter} was beyond its ceiling then: propose it")
            changes.append((entry, value))
        if not changes:
            raise Refused("nothing was different then")
        for entry, value in changes:
            entry.held, entry.proposal = Held(value=value), None
            self._link(
                entry, value, "rolled_back", "rollback", now_ms, actor=decision.actor,
                reason=f"to version {version}: {decision.reason}", decision_id=decision.decision_id,
            )  # fmt: skip

    def _proposed(self, decision: ThresholdDecision) -> tuple[Entry, Proposal]:
        for entry in self._entries.values():
            if entry.proposal is not None and entry.proposal.version == decision.version:
                return entry, entry.proposal
        raise Refused(f"no open proposal of version {decision.version}")

    def _release(self, entry: Entry, cause: Cause, now_ms: int, actor: str, reason: str, decision_id: str) -> None:
        entry.held = None
        self._link(
            entry, self._base(entry.parameter), "active", cause, now_ms, actor=actor, reason=reason,
            decision_id=decision_id,
        )  # fmt: skip

    # --- the chain

    def _base(self, parameter: str) -> float:
        ratchet = self.ratchets.get(parameter)
        return ratchet.threshold if ratchet is not None else DEFAULTS.get(parameter, 0.0)

    def _entry(self, scope: ThresholdScope, parameter: str) -> Entry:
        name = entry_name(scope, parameter)
        entry = self._entries.get(name)
        if entry is None:
            if len(self._entries) >= MOST_ENTRIES:
                raise Refused(f"{MOST_ENTRIES} thresholds are held already")
            base = self._base(parameter)
            entry = self._entries[name] = Entry(scope=scope, parameter=parameter, value=base, past=[(0, base)])
        self._changed[_ENTRY + name.encode()] = None
        return entry

    def _link(
        self, entry: Entry, value: float, mode: LinkMode, cause: Cause, now_ms: int, *, move: Move | None = None,
        actor: str = "feedback", approver: str = "", reason: str, until_ms: int | None = None,
        cost: float | None = None, decision_id: str = "",
    ) -> None:  # fmt: skip
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
        update = linked(update, head.hash, self._key, self._rules.key_id)
        self.head = Head(version=update.version, hash=update.hash, frozen=head.frozen)
        self.links.append(update)
        if mode in IN_FORCE:
            entry.value = value
            entry.past = [*entry.past, (update.version, value)][-MOST_PAST:]
        self._changed |= {_HEAD: None, _ENTRY + name.encode(): None}

    # --- state

    def changes(self) -> Iterator[tuple[bytes, bytes | None]]:
        """State records that changed since the last call."""
        changed, self._changed = self._changed, {}
        for key in changed:
            yield key, self._packed(key)

    def snapshot(self) -> Iterator[tuple[bytes, bytes]]:
        """The whole state."""
        keys = [_HEAD, *(_ENTRY + name.encode() for name in self._entries)]
        for key in (*keys, *(_RATCHET + name.encode() for name in self.ratchets)):
            yield key, self._packed(key)

    def load(self, key: bytes, value: bytes | None) -> bool:
        """Take over a record of `changes`; False when it is not one of them."""
        if value is None:
            return False
        if key == _HEAD:
            self.head = _decode_head(value)
        elif key.startswith(_ENTRY):
            self._entries[key[2:].decode()] = _decode_entry(value)
        elif key.startswith(_RATCHET):
            name = key[2:].decode()
            if name in self._rules.ratchets:
                self.ratchets[name] = Ratchet.restore(self._rules.ratchets[name], value)
        else:
            return False
        return True

    def _packed(self, key: bytes) -> bytes:
        if key == _HEAD:
            return _encode(self.head)
        if key.startswith(_ENTRY):
            return _encode(self._entries[key[2:].decode()])
        return self.ratchets[key[2:].decode()].snapshot()


_REASONS: Mapping[str, str] = {
    "alarm": "trusted labels show more misses than are allowed",
    "evidence": "trusted labels show that the next value is safe",
    "untrusted": "several tenants report unsafe answers; it expires",
    "expiry": "the step that reports had caused has expired",
}


def scope_of(parameter: str) -> ThresholdScope:
    """The scope of one of the workers' own thresholds: its detector, everywhere."""
    return ThresholdScope(detector=parameter.partition(".")[0])


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


def _checked_scope(decision: ThresholdDecision) -> ThresholdScope:
    """The scope that a decision's parameter has.

    Raises:
        Refused: there is no such parameter, or it has no such scope.
    """
    parameter, scope = decision.parameter, decision.scope
    if parameter in ROUTING:
        if not scope.route or not scope.category:
            raise Refused("what is decided about routes needs a route and a category")
        return scope
    if parameter not in DEFAULTS:
        raise Refused(f"no such threshold: {parameter or '(none given)'}")
    if scope not in (ThresholdScope(), scope_of(parameter)):
        raise Refused("workers judge all tenants and routes by one value of it")
    return scope_of(parameter)


def _ends(move: Move) -> tuple[int, int]:
    return move.old_index, move.new_index


def _evidence(move: Move) -> dict[str, float | int]:
    return {
        "n_trusted": move.n_trusted, "n_principals": move.n_principals, "n_tenants": move.n_tenants,
        "risk_ucb": move.risk_ucb, "e_value": move.e_value, "alpha": move.alpha, "delta": move.delta,
        "epsilon": move.epsilon,
    }  # fmt: skip


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _ms(time: datetime | None) -> int | None:
    return None if time is None else round(time.timestamp() * 1000)
