"""Tenants inside the fleet: a tenant's labels can make its own threshold stricter, nobody else's looser."""

from collections.abc import Iterator

import msgspec

from detectors.ratchet.policy import Ratchet
from detectors.ratchet.terms import Move, RatchetConfig, TrustedLabel, UntrustedReport

FLEET = ""


class Nested:
    """One detector's thresholds: the fleet's ratchet, and a ratchet for each tenant that has labels of its own.

    A tenant is judged by `min(fleet, own)`. A tenant's own ratchet begins at its ceiling, so that it has no say
    until its labels tighten it; what it loosens later is only what it had tightened. The fleet's ratchet takes all
    trusted labels; a tenant's misses count as one of the `votes` that it needs to tighten, and its labels alone
    cannot loosen it (`least_tenants`). State: at most 4 kB for each of `most_tenants` + 1 scopes; tenants that
    come when there is no room are ruled by the fleet's threshold.
    """

    def __init__(self, config: RatchetConfig, most_tenants: int = 256) -> None:
        self.fleet = Ratchet(config)
        self.own: dict[str, Ratchet] = {}
        self._own_config = own_config(config)
        self._most = most_tenants
        self._waiting: set[str] = set()  # tenants in whose ratchet something may be due without a label; derived

    def threshold(self, tenant_id: str) -> float:
        """The threshold in force for a tenant's requests; the fleet's for `FLEET` and tenants without labels."""
        own = self.own.get(tenant_id)
        return self.fleet.threshold if own is None else min(self.fleet.threshold, own.threshold)

    def take(self, label: TrustedLabel) -> None:
        """Take a trusted label into the fleet's ratchet and into its tenant's, which begins with the first one."""
        self.fleet.take(label)
        own = self.own.get(label.tenant_id)
        if own is None and label.tenant_id and len(self.own) < self._most:
            sensitivity = self.fleet.config.sensitivity
            own = Ratchet(msgspec.structs.replace(self._own_config, sensitivity=sensitivity))
            self.own[label.tenant_id] = own
        if own is not None:
            own.take(label)
            self._note(label.tenant_id, own)

    def take_untrusted(self, report: UntrustedReport) -> None:
        """Take an untrusted report into both: it can only tighten, softly."""
        self.fleet.take_untrusted(report)
        own = self.own.get(report.tenant_id)
        if own is not None:
            own.take_untrusted(report)

    def set_sensitivity(self, value: float) -> None:
        """See `Ratchet.set_sensitivity`; of all."""
        for ratchet in (self.fleet, *self.own.values()):
            ratchet.set_sensitivity(value)

    def due(self, now: float, tenant_id: str = FLEET) -> Iterator[tuple[str, Ratchet, Move]]:
        """What is due at stream time `now`, and in whose ratchet (a tenant's id, or `FLEET`).

        Ask after each label or report, with its tenant: of the others only those that wait can have something due.
        They come by name, whatever order they were restored in.
        """
        for name in dict.fromkeys((FLEET, tenant_id, *sorted(self._waiting))):
            ratchet = self.fleet if name == FLEET else self.own.get(name)
            move = None if ratchet is None else ratchet.decision(now)
            if ratchet is not None and move is not None:
                yield name, ratchet, move

    def apply(self, tenant_id: str, move: Move) -> None:
        """Put a move of `due` in force; see `Ratchet.apply`.

        Raises:
            KeyError: there is no such ratchet.
            ValueError: the move is out of date.
        """
        if tenant_id == FLEET:
            self.fleet.apply(move)
        else:
            self.own[tenant_id].apply(move)
            self._note(tenant_id, self.own[tenant_id])

    @property
    def soft(self) -> bool:
        """Whether a soft step is in force, which expires with time alone."""
        return self.fleet.soft > 0 or any(self.own[name].soft for name in self._waiting)

    def load(self, tenant_id: str, state: bytes) -> None:
        """Take over what `Ratchet.snapshot` made of one scope.

        Raises:
            ValueError: it is none.
        """
        if tenant_id == FLEET:
            self.fleet = Ratchet.restore(self.fleet.config, state)
        else:
            self.own[tenant_id] = Ratchet.restore(self._own_config, state)
            self._note(tenant_id, self.own[tenant_id])

    def _note(self, tenant_id: str, own: Ratchet) -> None:
        if own.soft or own.alarmed:
            self._waiting.add(tenant_id)
        else:
            self._waiting.discard(tenant_id)


def own_config(config: RatchetConfig) -> RatchetConfig:
    """The rules of a tenant's own ratchet: it begins at its ceiling, and its own vote is enough."""
    return msgspec.structs.replace(config, start=config.ceiling, votes=1, least_tenants=1, soft_tenants=1)
