"""What operators are told: one alert per identity, firing until its event time has been quiet."""

from typing import Literal

import msgspec

from schemas.events import Time
from schemas.verdicts import Category, Direction, Severity


class Alert(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """A state of an alert. `fingerprint` is the hash of the sorted identity labels, `alert_id` of one firing."""

    alert_id: str  # fingerprint and start: one episode of firing
    fingerprint: str
    alertname: str
    category: Category
    severity: Severity
    status: Literal["pending", "firing", "resolved"]
    labels: dict[str, str]
    starts_at: Time
    last_seen: Time
    ends_at: Time | None = None
    time: Time  # stream time of this transition or refresh
    count: int = 0  # findings in it
    sequence: int = 0  # grows with each published state of this alert
    principals: int = 0
    tenants: int = 0
    detector: str = ""
    detector_version: str = ""
    tenant_id: str = ""
    principal_hash: str = ""
    router_name: str = ""
    direction: Direction = ""
    score: float = 0.0  # the highest so far
    threshold: float = 0.0
    threshold_version: int = 0
    catalogue_version: int = 0
    trigger_id: str = ""
    window: str = ""
    est_cost_usd: float | None = None
    first_request_id: str = ""
    first_event_time: Time | None = None
    request_ids: list[str] = []  # the first ones, bounded
    finding_ids: list[str] = []
    mitre_atlas: list[str] = []
    owasp: list[str] = []
    runbook_url: str = ""
    summary: str = ""
    attributes: dict[str, list[str]] = {}  # different values of what the detection sums up, the first ones
    campaign: bool = False  # of several identities: it inhibits the alerts of its members
    suppressed_by: str = ""  # the suppression in force; such an alert is kept, but nobody is told
    inhibited_by: str = ""  # the campaign's alert_id, which says it all already; likewise
