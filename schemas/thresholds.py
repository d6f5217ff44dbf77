"""Threshold updates, on the compacted topic `pointsman.thresholds.v1` (key: scope and parameter)."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from schemas.events import Id, Name, Real, Share, Time


class ThresholdScope(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True, gc=False):
    """What a threshold rules: a detector, or a router's own cutline; empty fields mean all."""

    detector: Name = ""
    router_name: Name = ""
    route: Name = ""
    category: Name = ""
    tenant_id: Name = ""


class ThresholdUpdate(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One link of the hash chain of a threshold: what it was, what it is, who did it, and why."""

    update_id: Id
    scope: ThresholdScope
    parameter: Id
    old_value: Real | None
    new_value: Real
    direction: Literal["tighten", "loosen"]
    version: Annotated[int, Meta(ge=1)]
    mode: Literal["proposed", "shadow", "active", "rolled_back", "pinned"]
    cause: Literal["auto", "manual", "rollback", "expiry"]
    time: Time
    n_trusted: int = 0
    n_principals: int = 0
    n_tenants: int = 0
    risk_ucb: Share | None = None
    e_value: Annotated[float, Meta(ge=0)] | None = None
    alpha: Share | None = None
    delta: Share | None = None
    epsilon: Share | None = None
    cost_usd_per_day: Real | None = None
    actor: Name = ""
    approver: Name = ""
    reason: Annotated[str, Meta(max_length=1024)] = ""
    expires_at: Time | None = None
    prev_hash: Name = ""
    hash: Name = ""
