"""Tenants inside the fleet: a tenant's labels can make its own threshold stricter, nobody else's looser."""

from collections.abc import Iterator

import msgspec

from detectors.ratchet.policy import Ratchet
from detectors.ratchet.terms import Move, RatchetConfig, TrustedLabel, UntrustedReport
from detectors.timetable import Timetable

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
        self._asked: set[str] = set()  # whom `due` looks at the next time; derived, as is the next
        self._soft = Timetable()  # whose soft step expires when

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
        self._asked |= {FLEET, label.tenant_id}

    def take_untrusted(self, report: UntrustedReport) -> None:
        """Take an untrusted report into both: it can only tighten, softly."""
        self.fleet.take_untrusted(report)
        own = self.own.get(report.tenant_id)
        if own is not None:
            own.take_untrusted(report)
        self._asked |= {FLEET, report.tenant_id}

    def set_sensitivity(self, value: float) -> None:
        """See `Ratchet.set_sensitivity`; of all."""
        for ratchet in (self.fleet, *self.own.values()):
            ratchet.set_sensitivity(value)
        self.ask_all()

    def due(self, now: float) -> Iterator[tuple[str, Ratchet, Move]]:
        """What is due at stream time `now`, and in whose ratchet (a tenant's id, or `FLEET`), by name.

        Ask after each label or report. It looks where something may have come due since: by a label, a report, a
        move, or time. A move that is not put in force is told again when its scope is asked for.
        """
        asked = self._asked.union(self._soft.due(now))
        self._asked = set()
        for name in sorted(asked):
            ratchet = self.fleet if name == FLEET else self.own.get(name)
            move = None if ratchet is None else ratchet.decision(now)
            if ratchet is not None and move is not None:
                yield name, ratchet, move

    def ask(self, tenant_id: str) -> None:
        """Have `due` look at one scope."""
        self._asked.add(tenant_id)

    def ask_all(self) -> None:
        """Have `due` look at all scopes."""
        self._asked |= {FLEET, *self.own}

    def apply(self, tenant_id: str, move: Move) -> None:
        """Put a move of `due` in force; see `Ratchet.apply`.

        Raises:
            KeyError: there is no such ratchet.
            ValueError: the move is out of date.
        """
        ratchet = self.fleet if tenant_id == FLEET else self.own[tenant_id]
        ratchet.apply(move)
        self._note(tenant_id, ratchet)

    @property
    def soft(self) -> bool:
        """Whether a soft step is in force that expires with time alone."""
        return len(self._soft) > 0

    def load(self, tenant_id: str, state: bytes) -> None:
        """Take over what `Ratchet.snapshot` made of one scope.

        Raises:
            ValueError: it is none.
        """
        ratchet = Ratchet.restore(self.fleet.config if tenant_id == FLEET else self._own_config, state)
        if tenant_id == FLEET:
            self.fleet = ratchet
        else:
            self.own[tenant_id] = ratchet
        self._note(tenant_id, ratchet)

    def _note(self, tenant_id: str, ratchet: Ratchet) -> None:
        self._asked.add(tenant_id)
        self._soft.set(tenant_id, ratchet.soft_until)


def own_config(config: RatchetConfig) -> RatchetConfig:
    """The rules of a tenant's own ratchet: it begins at its ceiling, and its own vote is enough."""
    return msgspec.structs.replace(config, start=config.ceiling, votes=1, least_tenants=1, soft_tenants=1)
