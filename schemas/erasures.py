"""Erased principals: tombstones that outlive what they cover, in `pointsman.erasures.v1` and in the history."""

from datetime import datetime

import msgspec

from schemas.events import Id, Name, Time


class Erasure(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True, gc=False):
    """What a principal of a tenant did before `until` (stream time) is to be known nowhere."""

    tenant_id: Id
    principal_hash: Id
    until: Time
    actor: Name = ""
    reason: Name = ""


class Erasures:
    """Which records are not to be read, replayed or stored again."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, str], datetime] = {}

    def __len__(self) -> int:
        return len(self._until)

    def add(self, erasure: Erasure) -> None:
        """Take one over; the latest `until` of a principal holds."""
        key = erasure.tenant_id, erasure.principal_hash
        self._until[key] = max(erasure.until, self._until.get(key, erasure.until))

    def cover(self, tenant: str, principal: str, time: datetime) -> bool:
        """Whether what this principal did at `time` (stream time) has been erased."""
        until = self._until.get((tenant, principal))
        return until is not None and time < until
