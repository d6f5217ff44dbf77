"""What people decide about thresholds: carried out, or refused with the reason."""

import math
from collections.abc import Callable, Mapping

import msgspec

from detectors.feedback.answers import milliseconds
from detectors.feedback.book import OPEN_MS, Book
from detectors.feedback.chain import MOST_ENTRIES, Entry, Held, LinkMode, Proposal, entry_name
from detectors.thresholds import DEFAULTS, bounds
from schemas.thresholds import FROZEN, ROUTING, ThresholdDecision, ThresholdScope, looser, scope_of

_MOST_NAMED = 20  # of what is open


class Refused(ValueError):
    """A decision that is not carried out, and why."""


class People:
    """Carries decisions out in a book. Who may decide is not asked here."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._chain = book.chain
        self._rules = book.rules
        self._carry_out: Mapping[str, Callable[[ThresholdDecision, int], None]] = {
            "propose": self._propose, "approve": self._approve, "reject": self._reject, "pin": self._pin,
            "unpin": self._unpin, "freeze": self._freeze, "unfreeze": self._freeze, "rollback": self._rollback,
        }  # fmt: skip

    def decide(self, decision: ThresholdDecision, now_ms: int) -> None:
        """Carry a decision out.

        Raises:
            Refused: it may not be, or means nothing.
        """
        self._carry_out[decision.action](decision, now_ms)

    def _propose(self, decision: ThresholdDecision, now_ms: int) -> None:
        value, scope = decision.value, self._checked_scope(decision)
        if value is None or not math.isfinite(value):
            raise Refused("a proposal needs a value")
        entry = self._entry(scope, decision.parameter)
        if value == entry.value and entry.held is None:
            raise Refused("that value is in force")
        if decision.parameter in DEFAULTS:
            least, most = bounds(decision.parameter)
            if not least <= value <= most:
                raise Refused(f"{decision.parameter} lies between {least:g} and {most:g}")
        if scope.tenant_id and looser(decision.parameter, value, fleet := self._book.value(decision.parameter)):
            raise Refused(f"a tenant's own value is never looser than the fleet's, which is {fleet:g}")
        until_ms = None if decision.expires_at is None else milliseconds(decision.expires_at)
        if until_ms is not None and until_ms <= now_ms:
            raise Refused("it would have expired")
        self._chain.link(
            entry, value, "proposed", "manual", now_ms, actor=decision.actor, reason=decision.reason,
            until_ms=until_ms, cost=decision.cost_usd_per_day, decision_id=decision.decision_id,
        )  # fmt: skip
        entry.proposal = Proposal(
            version=self._chain.head.version, at_ms=now_ms, value=value, cause="manual", actor=decision.actor,
            reason=decision.reason, until_ms=until_ms, cost_usd_per_day=decision.cost_usd_per_day,
        )  # fmt: skip

    def _approve(self, decision: ThresholdDecision, now_ms: int) -> None:
        entry, proposal = self._proposed(decision)
        if decision.actor in proposal.approvers:
            raise Refused(f"{decision.actor} has approved it already")
        approvers = [*proposal.approvers, decision.actor]
        beyond = self._rules.beyond(entry.parameter, proposal.value)
        if beyond and not self._rules.approvers:
            raise Refused("it lies beyond its ceiling, which takes two approvers with keys: set feedback.approvers")
        if proposal.at_ms + OPEN_MS <= now_ms:  # decisions are carried out before what is due by time
            raise Refused("nobody settled it within a week")
        if proposal.until_ms is not None and proposal.until_ms <= now_ms:
            raise Refused("it would have expired")
        if beyond and len(approvers) < 2:
            self._link_proposal(entry, proposal, approvers, "proposed", now_ms, decision)
            version = self._chain.head.version
            entry.proposal = msgspec.structs.replace(proposal, version=version, approvers=approvers)
            return
        if proposal.move is None:
            entry.held = Held(value=proposal.value, until_ms=proposal.until_ms)
        else:
            try:
                move = msgspec.structs.replace(proposal.move, time=now_ms / 1000)
                self._book.ratchets.apply((entry.parameter, entry.scope.tenant_id), move)
            except ValueError as error:
                raise Refused("the evidence has moved on since") from error
            entry.held = None
        self._link_proposal(entry, proposal, approvers, "active", now_ms, decision)
        entry.proposal = None

    def _link_proposal(
        self, entry: Entry, proposal: Proposal, approvers: list[str], mode: LinkMode, now_ms: int,
        decision: ThresholdDecision,
    ) -> None:  # fmt: skip
        self._chain.link(
            entry, proposal.value, mode, proposal.cause, now_ms, move=proposal.move, actor=proposal.actor,
            approver=", ".join(approvers), reason=f"{proposal.reason}; {decision.reason}",
            until_ms=proposal.until_ms, cost=proposal.cost_usd_per_day, decision_id=decision.decision_id,
        )  # fmt: skip

    def _reject(self, decision: ThresholdDecision, now_ms: int) -> None:
        entry, proposal = self._proposed(decision)
        self._link_proposal(entry, proposal, [decision.actor], "rejected", now_ms, decision)
        entry.rejected, entry.proposal = (proposal.value, now_ms), None

    def _pin(self, decision: ThresholdDecision, now_ms: int) -> None:
        entry = self._entry(self._checked_scope(decision), decision.parameter)
        if self._rules.beyond(entry.parameter, entry.value):
            raise Refused(
                "it lies beyond its ceiling, where two approvers hold it as long as they said: propose it"
            )
        entry.held = Held(value=entry.value)
        self._link(entry, entry.value, "pinned", now_ms, decision)

    def _unpin(self, decision: ThresholdDecision, now_ms: int) -> None:
        entry = self._entry(self._checked_scope(decision), decision.parameter)
        if entry.held is None:
            raise Refused("nobody holds it")
        self._book.release(entry, "manual", now_ms, decision.actor, decision.reason, decision.decision_id)

    def _freeze(self, decision: ThresholdDecision, now_ms: int) -> None:
        """Freeze or unfreeze."""
        frozen = decision.action == "freeze"
        if self._chain.head.frozen == frozen:
            raise Refused("it is so already")
        self._chain.freeze(frozen)
        entry = self._entry(ThresholdScope(), FROZEN)
        self._link(entry, float(frozen), "pinned" if frozen else "active", now_ms, decision)

    def _rollback(self, decision: ThresholdDecision, now_ms: int) -> None:
        version = decision.version
        if version is None or version > self._chain.head.version:
            raise Refused("to which version?")
        entries = self._chain.entries
        if decision.parameter:
            names = [entry_name(self._checked_scope(decision), decision.parameter)]
        else:
            names = [name for name, entry in entries.items() if entry.parameter != FROZEN]
        changes = []
        for name in sorted(names):
            entry = entries.get(name)
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
            self._chain.link(
                entry, value, "rolled_back", "rollback", now_ms, actor=decision.actor,
                reason=f"to version {version}: {decision.reason}", decision_id=decision.decision_id,
            )  # fmt: skip

    def _link(self, entry: Entry, value: float, mode: LinkMode, now_ms: int, decision: ThresholdDecision) -> None:
        self._chain.link(
            entry, value, mode, "manual", now_ms, actor=decision.actor, reason=decision.reason,
            decision_id=decision.decision_id,
        )  # fmt: skip

    def _entry(self, scope: ThresholdScope, parameter: str) -> Entry:
        entry = self._book.entry(parameter, scope)
        if entry is None:
            raise Refused(f"{MOST_ENTRIES} thresholds are held already")
        return entry

    def _proposed(self, decision: ThresholdDecision) -> tuple[Entry, Proposal]:
        proposed = [(entry, entry.proposal) for entry in self._chain.entries.values() if entry.proposal is not None]
        for entry, proposal in proposed:
            if proposal.version == decision.version:
                return entry, proposal
        versions = sorted(proposal.version for _, proposal in proposed)
        known = f"open are {', '.join(map(str, versions[:_MOST_NAMED]))}" if versions else "none is open"
        raise Refused(f"no open proposal of version {decision.version}: {known}")

    def _checked_scope(self, decision: ThresholdDecision) -> ThresholdScope:
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
            raise Refused(f"no such threshold: {parameter}" if parameter else "which threshold?")
        whole = scope_of(parameter, scope.tenant_id)
        if scope not in (whole, msgspec.structs.replace(whole, detector="")):
            raise Refused("workers judge all routers and routes by one value of it")
        if scope.tenant_id and parameter not in self._rules.ratchets:
            raise Refused(f"tenants have values of their own of {', '.join(sorted(self._rules.ratchets))} only")
        return whole
