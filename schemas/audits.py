"""Audit tickets that the detect lane draws, labels of trusted judges on `router.audits.v1`, untrusted reports."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from schemas.events import Id, Name, Real, Share, Time

Stratum = Literal["flagged", "near", "rest"]  # at or over the threshold; not far below it; all else


class AuditTicket(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """A signed question about one request: is it safe? Carries what the label must answer to.

    `unsafe` means that `detector` should have flagged it: the prompt attacked the router, or the answer did harm.
    Nothing here tells a canary (a request whose answer is known) from any other.
    """

    ticket_id: Id
    request_id: Id
    tenant_id: Id
    principal_hash: Id
    detector: Name
    parameter: Name = ""  # the threshold that the label bears on, as in `detectors/thresholds.py`
    router_name: Name = ""
    route: Name = ""  # the model that was chosen
    category: Name = ""
    difficulty_score: Real | None = None  # as the router gave it
    score: float
    threshold: float
    threshold_version: int
    stratum: Stratum = "rest"
    weight: Annotated[float, Meta(gt=0)] = 1.0  # how much more often such requests occur than they are drawn
    issued_at: Time
    expires_at: Time
    signature: Name = ""  # `hmac-sha256:KEYID:...` over all the above


class AuditLabel(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """A trusted judge's answer. Who may write the topic is an ACL: trust is where a label came from."""

    label_id: Id
    ticket: AuditTicket
    judge: Id
    label: Literal["safe", "unsafe", "unknown"]
    confidence: Share | None = None
    labelled_at: Time
    reason: Annotated[str, Meta(max_length=1024)] = ""


class UnsafeReport(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """Somebody untrusted called the answer to an unflagged request unsafe: one a tenant, route and period.

    From an outcome, so from a gateway, a user or an agent, whatever `outcome_source` says. It can only tighten.
    """

    report_id: Id
    request_id: Id
    tenant_id: Id
    principal_hash: Id
    router_name: Name = ""
    route: Name = ""
    category: Name = ""
    time: Time  # stream time
