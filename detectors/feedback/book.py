"""The book of thresholds: what is in force, proposed or held.

A threshold's value is what people hold it at (an override, a pin, a rollback), else what its ratchet says, else
what ships. Here evidence and time move it; `People` carries decisions out; either makes links of one chain. A
tenant's own value is a threshold like any other: whoever judges takes the stricter of it and of the fleet's.
"""

from collections.abc import Iterator, Mapping

from detectors.feedback.chain import Cause, Chain, Entry, Proposal
from detectors.feedback.ratchets import Ratchets, Scope
from detectors.feedback.rules import Rules
from detectors.ratchet import Move, Ratchet
from detectors.thresholds import DEFAULTS
from detectors.timetable import Timetable
from schemas.signatures import derived
from schemas.thresholds import FROZEN, ThresholdScope, looser, scope_of

OPEN_MS = 7 * 86_400_000  # of a proposal that nobody settles
REST_MS = 86_400_000  # after a rejection, before the same value may be proposed again


class Book:
    """State: the chain, the ratchets."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.chain = Chain(derived(rules.key, "updates"), rules.key_id)
        self.ratchets = Ratchets(rules.ratchets)
        self._times = Timetable()  # of entries: when something is due of them with time alone; derived

    def value(self, parameter: str, scope: ThresholdScope | None = None) -> float:
        """What is in force."""
        scope = scope or scope_of(parameter)
        entry = self.chain.find(scope, parameter)
        return entry.value if entry else self.base(parameter, scope)

    def base(self, parameter: str, scope: ThresholdScope) -> float:
        """The value where nobody holds another: the ratchet's, else what ships; a tenant's begins at a ceiling."""
        ratchet = self.ratchets.of(parameter, scope.tenant_id)
        if ratchet is not None:
            return ratchet.threshold
        ceiling = self.rules.ceiling(parameter) if scope.tenant_id else None
        return DEFAULTS.get(parameter, 0.0) if ceiling is None else ceiling

    def entry(self, parameter: str, scope: ThresholdScope) -> Entry | None:
        """The entry of a threshold, to be changed; None where there is no room for another."""
        return self.chain.entry(scope, parameter, self.base(parameter, scope))

    def waiting(self) -> bool:
        """Whether something expires with time alone."""
        return self.ratchets.waiting() or len(self._times) > 0 or len(self.chain.touched) > 0

    def release(self, entry: Entry, cause: Cause, now_ms: int, actor: str, reason: str, decision_id: str) -> None:
        """Let go of a value that was held: the evidence's is in force again."""
        entry.held = None
        self.chain.link(
            entry, self.base(entry.parameter, entry.scope), "active", cause, now_ms, actor=actor, reason=reason,
            decision_id=decision_id,
        )  # fmt: skip

    # --- evidence and time

    def advance(self, now_ms: int, measured: bool) -> None:
        """Do what is due: overrides expire, evidence moves or proposes. `measured`: the judges are known.

        Looked at is what may have come due since the last call: by time, or by a link. It takes no longer, the more
        thresholds there are.
        """
        names = sorted({*self._times.due(now_ms), *self.chain.touched})
        for name in names:
            self._look_at(self.chain.entries[name], now_ms)
        for (parameter, tenant), ratchet, move in self.ratchets.due(now_ms / 1000):
            entry = self.entry(parameter, scope_of(parameter, tenant))
            if entry is not None:
                self._on_move(entry, (parameter, tenant), ratchet, move, now_ms, measured)
        for name in {*names, *self.chain.touched}:
            self._times.set(name, _due_ms(self.chain.entries[name], now_ms))
        self.chain.touched = {}

    def _look_at(self, entry: Entry, now_ms: int) -> None:
        self._expire(entry, now_ms)
        if entry.parameter == FROZEN:
            self.ratchets.ask_all()
        else:
            self.ratchets.ask(entry.parameter, entry.scope.tenant_id)

    def _expire(self, entry: Entry, now_ms: int) -> None:
        if entry.held and entry.held.until_ms is not None and entry.held.until_ms <= now_ms:
            self.release(entry, "expiry", now_ms, "feedback", "the override expired", "")
        if entry.proposal and entry.proposal.at_ms + OPEN_MS <= now_ms:
            reason = "nobody settled it within a week"
            self.chain.link(entry, entry.proposal.value, "rejected", "expiry", now_ms, reason=reason)
            entry.proposal = None
        base, ours = self.base(entry.parameter, entry.scope), entry.parameter in DEFAULTS
        if ours and entry.held is None and looser(entry.parameter, entry.value, base):
            reason = "the rules of this installation allow no more"
            self.release(entry, "auto", now_ms, "feedback", reason, "")

    def _on_move(
        self, entry: Entry, scope: Scope, ratchet: Ratchet, move: Move, now_ms: int, measured: bool
    ) -> None:
        expiry = move.why == "expiry"  # was agreed to when the step was taken
        trusted = measured or move.why != "evidence"  # judges not measured may tighten, never loosen by themselves
        automatic = expiry or (self.rules.mode == "active" and trusted and entry.held is None)
        if automatic and not self.chain.head.frozen:
            self.ratchets.apply(scope, move)
            if entry.proposal is not None and entry.proposal.move is not None:
                entry.proposal = None  # its evidence is about what was in force before
            if entry.held is None and entry.value != ratchet.threshold:
                self.chain.link(
                    entry, ratchet.threshold, "active", "expiry" if expiry else "auto", now_ms, move=move,
                    reason=_REASONS[move.why],
                )  # fmt: skip
        elif self.rules.mode == "shadow":
            if entry.shadow != move.new_value:
                entry.shadow = move.new_value
                reason = _REASONS[move.why]
                self.chain.link(entry, move.new_value, "shadow", "auto", now_ms, move=move, reason=reason)
        elif self.rules.mode != "observe":
            self._offer(entry, move, now_ms)

    def _offer(self, entry: Entry, move: Move, now_ms: int) -> None:
        open_ = entry.proposal
        if open_ is not None and (open_.move is None or _same(open_.move, move)):
            return  # the same, or a person's, which people settle first
        if entry.rejected and entry.rejected[0] == move.new_value and now_ms < entry.rejected[1] + REST_MS:
            return
        reason = _REASONS[move.why]
        self.chain.link(entry, move.new_value, "proposed", "auto", now_ms, move=move, reason=reason)
        entry.proposal = Proposal(
            version=self.chain.head.version, at_ms=now_ms, value=move.new_value, cause="auto", actor="feedback",
            reason=reason, move=move,
        )  # fmt: skip

    # --- state

    def changes(self) -> Iterator[tuple[bytes, bytes]]:
        """State records that changed since the last call."""
        yield from self.chain.changes()
        yield from self.ratchets.changes()

    def snapshot(self) -> Iterator[tuple[bytes, bytes]]:
        """The whole state."""
        yield from self.chain.snapshot()
        yield from self.ratchets.snapshot()

    def load(self, key: bytes, value: bytes) -> bool:
        """Take over a record of `changes`; False when it is not one of them."""
        return self.chain.load(key, value) or self.ratchets.load(key, value)


_REASONS: Mapping[str, str] = {
    "alarm": "trusted labels show more misses than are allowed",
    "evidence": "trusted labels show that the next value is safe",
    "untrusted": "several tenants report unsafe answers; it expires",
    "expiry": "the step that reports had caused has expired",
}


def _due_ms(entry: Entry, now_ms: int) -> int | None:
    """The next time at which something is due of an entry: an override, a proposal or a rejection ends."""
    times = [
        entry.held.until_ms if entry.held else None,
        entry.proposal.at_ms + OPEN_MS if entry.proposal else None,
        entry.rejected[1] + REST_MS if entry.rejected else None,
    ]
    return min((time for time in times if time is not None and time > now_ms), default=None)


def _same(one: Move, other: Move) -> bool:
    return (one.old_index, one.new_index, one.epoch) == (other.old_index, other.new_index, other.epoch)
