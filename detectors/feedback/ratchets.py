"""All that evidence says: of each threshold that labels can judge, the fleet's ratchet and its tenants'."""

import json
from collections.abc import Iterable, Iterator, Mapping

from detectors.ratchet import FLEET, Move, Nested, Ratchet, RatchetConfig, TrustedLabel, UntrustedReport

_RATCHET = b"n/"

Scope = tuple[str, str]  # parameter, and a tenant's id or `FLEET`


class Ratchets:
    """State: each ratchet's, one record a scope."""

    def __init__(self, configs: Mapping[str, RatchetConfig]) -> None:
        self._nested = {parameter: Nested(config) for parameter, config in configs.items()}
        self._changed: dict[Scope, None] = {}

    def __len__(self) -> int:
        return sum(1 + len(nested.own) for nested in self._nested.values())

    def of(self, parameter: str, tenant_id: str = FLEET) -> Ratchet | None:
        """The fleet's ratchet, or a tenant's own; None where there is none."""
        nested = self._nested.get(parameter)
        return None if nested is None else nested.fleet if tenant_id == FLEET else nested.own.get(tenant_id)

    def take(self, parameter: str, label: TrustedLabel) -> None:
        """Take a trusted label about a threshold; one that has no ratchet learns nothing."""
        nested = self._nested.get(parameter)
        if nested is not None:
            nested.take(label)
            self._touch(parameter, label.tenant_id)

    def stuck(self, parameter: str, tenant_id: str) -> bool:
        """Whether nothing is left to tighten for this tenant's misses, though they ask for it."""
        found = (self.of(parameter), self.of(parameter, tenant_id))
        return any(ratchet is not None and ratchet.stuck for ratchet in found)

    def take_untrusted(self, report: UntrustedReport) -> None:
        """Take an untrusted report, which is about no threshold more than about another."""
        for parameter, nested in self._nested.items():
            nested.take_untrusted(report)
            self._touch(parameter, report.tenant_id)

    def set_sensitivity(self, value: float) -> None:
        """The judges' sensitivity as it is known now."""
        for parameter, nested in self._nested.items():
            if nested.fleet.config.sensitivity != value:
                nested.set_sensitivity(value)
                self._changed |= {(parameter, tenant): None for tenant in (FLEET, *nested.own)}

    def due(self, now: float) -> Iterator[tuple[Scope, Ratchet, Move]]:
        """Moves that are due at stream time `now`; see `Nested.due`."""
        for parameter, nested in self._nested.items():
            for tenant, ratchet, move in nested.due(now):
                yield (parameter, tenant), ratchet, move

    def ask(self, parameter: str, tenant_id: str) -> None:
        """Have `due` look at a scope again: a move that was not put in force may be now."""
        if parameter in self._nested:
            self._nested[parameter].ask(tenant_id)

    def ask_all(self) -> None:
        """Have `due` look at all scopes again."""
        for nested in self._nested.values():
            nested.ask_all()

    def apply(self, scope: Scope, move: Move) -> None:
        """Put a move in force.

        Raises:
            ValueError: there is no such ratchet, or the move is out of date (`Ratchet.apply`).
        """
        parameter, tenant = scope
        if self.of(*scope) is None:
            raise ValueError("no such ratchet")
        self._nested[parameter].apply(tenant, move)
        self._changed[scope] = None

    def waiting(self) -> bool:
        """Whether a soft step expires with time alone."""
        return any(nested.soft for nested in self._nested.values())

    # --- state

    def changes(self) -> Iterator[tuple[bytes, bytes]]:
        """State records that changed since the last call."""
        changed, self._changed = self._changed, {}
        return self._packed(changed)

    def snapshot(self) -> Iterator[tuple[bytes, bytes]]:
        """The whole state."""
        return self._packed(
            (parameter, tenant) for parameter, nested in self._nested.items() for tenant in (FLEET, *nested.own)
        )

    def load(self, key: bytes, value: bytes) -> bool:
        """Take over a record of `changes`; False when it is not one of them."""
        if not key.startswith(_RATCHET):
            return False
        parameter, tenant = json.loads(key[len(_RATCHET) :])
        if parameter in self._nested:
            self._nested[parameter].load(tenant, value)
        return True

    def _touch(self, parameter: str, tenant_id: str) -> None:
        self._changed[parameter, FLEET] = None
        if self.of(parameter, tenant_id) is not None:
            self._changed[parameter, tenant_id] = None

    def _packed(self, scopes: Iterable[Scope]) -> Iterator[tuple[bytes, bytes]]:
        for scope in scopes:
            ratchet = self.of(*scope)
            if ratchet is not None:
                yield _RATCHET + json.dumps(scope).encode(), ratchet.snapshot()
