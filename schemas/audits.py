"""Audit tickets drawn by the detect lane, and the labels that trusted judges give on `router.audits.v1`."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from schemas.events import Id, Name, Share, Time


class AuditTicket(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """A signed question about one request: is its outcome safe? Carries what the label must answer to."""

    ticket_id: Id
    request_id: Id
    tenant_id: Id
    principal_hash: Id
    detector: Name
    route: Name = ""
    category: Name = ""
    score: float
    threshold: float
    threshold_version: int
    weight: Annotated[float, Meta(gt=0)] = 1.0  # inverse of the chance of being drawn
    issued_at: Time
    expires_at: Time
    canary: bool = False
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
