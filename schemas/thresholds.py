"""Thresholds in force, proposed or past: one hash chain of updates; and what people decide about them."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from schemas.events import Id, Name, Real, Share, Time

IN_FORCE = ("active", "pinned", "rolled_back")  # modes of links whose value is in force from then on
# What is decided for a category on a route; a router's own client reads it. 0 where nothing was decided.
ROUTING = ("routing.guardrail", "routing.stronger_route")
FROZEN = "frozen"  # the parameter of links that stop all automatic moves (1), or let them go on (0)


# What is asked of a route; and, of discovery, the chance of error, the questions and the likeness that are allowed.
_LOWER_IS_LOOSER = frozenset((*ROUTING, "discovery.alike", "discovery.error", "discovery.queries"))


def looser(parameter: str, one: float, other: float) -> bool:
    """Whether `one` lets more pass than `other`: a higher threshold does, but of a few a lower one."""
    return one < other if parameter in _LOWER_IS_LOOSER else one > other


class ThresholdScope(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True, gc=False):
    """What a threshold rules: a detector, or a router's own cutline; empty fields mean all."""

    detector: Name = ""
    router_name: Name = ""
    route: Name = ""
    category: Name = ""
    tenant_id: Name = ""


def scope_of(parameter: str, tenant_id: str = "") -> ThresholdScope:
    """The scope of one of the workers' own thresholds: its detector, everywhere or for one tenant."""
    return ThresholdScope(detector=parameter.partition(".")[0], tenant_id=tenant_id)


class ThresholdUpdate(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One link of the chain: what a threshold was, what it is (or would be), who did it, and why.

    There is one chain for all thresholds: `version` counts its links from 1, so it names one state of them all.
    """

    update_id: Id
    scope: ThresholdScope
    parameter: Id
    old_value: Real | None
    new_value: Real
    direction: Literal["tighten", "loosen"]
    version: Annotated[int, Meta(ge=1)]
    mode: Literal["proposed", "shadow", "active", "rolled_back", "pinned", "rejected"]
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
    hash: Name = ""  # `sha256:...` over all the above
    signature: Name = ""  # `hmac-sha256:KEYID:...` over all the above


def value_at(link: ThresholdUpdate, now: datetime) -> float:
    """A link's value: once it is over, and nobody has told what came after, the stricter of its two."""
    value, before = link.new_value, link.old_value
    is_over = link.expires_at is not None and link.expires_at <= now
    return before if is_over and before is not None and looser(link.parameter, value, before) else value


class ThresholdDecision(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """What a person asks of the feedback lane, on `pointsman.decisions.v1`; the lane does it, or refuses."""

    decision_id: Id
    action: Literal["propose", "approve", "reject", "pin", "unpin", "freeze", "unfreeze", "rollback"]
    scope: ThresholdScope = ThresholdScope()
    parameter: Name = ""
    value: Real | None = None  # propose
    cost_usd_per_day: Real | None = None  # propose: what it would cost, from history
    version: Annotated[int, Meta(ge=1)] | None = None  # approve, reject: the proposal's; rollback: the one to go to
    expires_at: Time | None = None  # propose: when the former value comes back
    actor: Id
    reason: Annotated[str, Meta(min_length=1, max_length=1024)]
    time: Time
    signature: Name = ""  # `hmac-sha256:ACTOR:...` with the actor's own key
