"""Tenants inside the fleet: a tenant's labels can make its own threshold stricter, nobody else's looser."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from detectors.ratchet.policy import Ratchet
from detectors.ratchet.terms import Move, RatchetConfig, TrustedLabel, UntrustedReport

FLEET = ""


class ScopedMove(NamedTuple):
    """A move, and whose: a tenant's id, or `FLEET`."""

    tenant_id: str
    move: Move


class Nested:
    """One detector's thresholds: the fleet's ratchet, and a ratchet for each tenant that has labels of its own.

    `threshold(tenant) = min(fleet, own)`. A tenant's own ratchet begins at its ceiling, so that it has no say until
    its labels tighten it; what it loosens later is only what it had tightened. The fleet's ratchet takes all
    trusted labels; a tenant's misses count as one of the `votes` that it needs to tighten, and its labels alone
    cannot loosen it (`least_tenants`). State: at most 4 kB for each of `most_tenants` + 1 scopes; tenants that
    come when there is no room are ruled by the fleet's threshold.
    """

    def __init__(self, config: RatchetConfig, most_tenants: int = 256) -> None:
        self.fleet = Ratchet(config)
        self.own: dict[str, Ratchet] = {}
        self._own_config = own_config(config)
        self._most = most_tenants

    def threshold(self, tenant_id: str) -> float:
        """The threshold in force for a tenant's requests; the fleet's for `FLEET` and tenants without labels."""
        own = self.own.get(tenant_id)
        return self.fleet.threshold if own is None else min(self.fleet.threshold, own.threshold)

    def take(self, label: TrustedLabel) -> None:
        """Take a trusted label into the fleet's ratchet and into its tenant's."""
        self.fleet.take(label)
        own = self._of(label.tenant_id)
        if own is not None:
            own.take(label)

    def take_untrusted(self, report: UntrustedReport) -> None:
        """Take an untrusted report into both: it can only tighten, softly."""
        self.fleet.take_untrusted(report)
        own = self._of(report.tenant_id)
        if own is not None:
            own.take_untrusted(report)

    def decisions(self, now: float, tenant_id: str = FLEET) -> list[ScopedMove]:
        """What is due at stream time `now` in the fleet's ratchet and in this tenant's; ask after each label."""
        scopes = [(FLEET, self.fleet)]
        if tenant_id in self.own:
            scopes.append((tenant_id, self.own[tenant_id]))
        due = [(name, ratchet.decision(now)) for name, ratchet in scopes]
        return [ScopedMove(name, move) for name, move in due if move is not None]

    def apply(self, scoped: ScopedMove) -> None:
        """Put a move in force.

        Raises:
            KeyError: the tenant has no ratchet.
            ValueError: the move does not start from what is in force.
        """
        ratchet = self.own[scoped.tenant_id] if scoped.tenant_id else self.fleet
        ratchet.apply(scoped.move)

    def snapshot(self) -> dict[str, bytes]:
        """State of each scope, by tenant id; `FLEET` for the fleet's."""
        return {FLEET: self.fleet.snapshot()} | {name: own.snapshot() for name, own in self.own.items()}

    @classmethod
    def restore(cls, config: RatchetConfig, states: Mapping[str, bytes], most_tenants: int = 256) -> "Nested":
        """Go on from a snapshot.

        Raises:
            ValueError: a state is of another format, or of another grid.
        """
        nested = cls(config, most_tenants)
        for name, state in states.items():
            if name == FLEET:
                nested.fleet = Ratchet.restore(config, state)
            else:
                nested.own[name] = Ratchet.restore(nested._own_config, state)
        return nested

    def _of(self, tenant_id: str) -> Ratchet | None:
        own = self.own.get(tenant_id)
        if own is None and tenant_id and len(self.own) < self._most:
            own = self.own[tenant_id] = Ratchet(self._own_config)
        return own


def own_config(config: RatchetConfig) -> RatchetConfig:
    """The rules of a tenant's own ratchet: it begins at its ceiling, and its own vote is enough."""
    return msgspec.structs.replace(config, start=config.ceiling, votes=1, least_tenants=1, soft_tenants=1)
