"""One alert from its first finding to its end: what a finding adds to it."""

from datetime import UTC, datetime

import msgspec

from detectors import distinct
from detectors.detections import Detection
from detectors.detections.correlation import Seen
from detectors.detections.model import SEVERITIES
from schemas.alerts import Alert
from schemas.codec import stable_id
from schemas.verdicts import Finding

MOST_EVIDENCE = 50  # request and finding ids kept per alert: the first ones
MOST_VALUES = 50  # of each summary attribute
MOST_PRICED = 64  # requests whose cost is known to be counted: outcomes come soon after verdicts
MOST_MEMBERS = 200  # of a campaign, remembered so as not to tell each of them at every finding

_NEVER_TOLD = -1
# What an alert says only while all its findings say the same.
_COMMON = ("tenant_id", "principal_hash", "router_name", "direction", "trigger_id", "window")


class Episode(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """An alert, and what is remembered of it beside what is published. Times are stream time."""

    alert: Alert
    last_ms: int = 0  # of the last finding
    last_offset: int = 0  # of the last finding: the order of expiry
    seen: Seen = []  # what the correlation remembers, while pending
    priced: list[int] = []  # digests of the last requests whose cost is in it
    members: dict[str, int] = {}  # of a campaign, by principal: when its alerts were told; the last ones
    told_ms: int = 0
    told_count: int = 0
    principals: list[int] = []  # sketches (detectors/distinct.py)
    tenants: list[int] = []

    @classmethod
    def begin(cls, identity: str, finding: Finding, detection: Detection, now: datetime) -> "Episode":
        """A pending alert that has no finding yet; `finding` will be its first."""
        return cls(
            alert=Alert(
                alert_id=stable_id(identity, now.isoformat()),
                fingerprint=identity,
                alertname=detection.rule_id,
                category=detection.category,
                severity=finding.severity,
                status="pending",
                labels=finding.labels,
                starts_at=now,
                last_seen=now,
                time=now,
                first_request_id=finding.request_id or next(iter(finding.request_ids), ""),
                mitre_atlas=list(detection.reports.mitre_atlas),
                owasp=list(detection.reports.owasp),
                runbook_url=detection.reference,
                summary=detection.display_name,
                **{name: getattr(finding, name) for name in _COMMON},
            )
        )

    @property
    def firing(self) -> bool:
        """Whether it has been told, and is not over."""
        return self.alert.status == "firing"

    def add(self, finding: Finding, detection: Detection) -> bool:
        """Take a finding into the numbers and the evidence; whether it is worse now: graver, or a campaign."""
        alert = self.alert
        alert.count += 1
        distinct.add(self.tenants, finding.tenant_id)
        distinct.add(self.principals, member(finding))
        alert.principals = distinct.count(self.principals)
        alert.tenants = distinct.count(self.tenants)
        for name in _COMMON:
            if getattr(alert, name) != getattr(finding, name):
                setattr(alert, name, "")
        alert.detector, alert.detector_version = finding.detector, finding.detector_version
        alert.catalogue_version = max(alert.catalogue_version, finding.catalogue_version)
        if alert.count == 1 or finding.score > alert.score:
            alert.score, alert.threshold = finding.score, finding.threshold
            alert.threshold_version = finding.threshold_version
        if finding.extra_cost_usd is not None:
            self._add_cost(finding.request_id, finding.extra_cost_usd)
        if finding.event_time is not None:
            event_time = finding.event_time.astimezone(UTC)
            alert.first_event_time = min(alert.first_event_time or event_time, event_time)
        _keep_first(alert.finding_ids, finding.finding_id, MOST_EVIDENCE)
        for request_id in (finding.request_id, *finding.request_ids):
            _keep_first(alert.request_ids, request_id, MOST_EVIDENCE)
        for name in detection.summary_attributes:
            _keep_first(alert.attributes.setdefault(name, []), str(getattr(finding, name)), MOST_VALUES)
        before = alert.campaign, SEVERITIES.index(alert.severity)
        alert.campaign = detection.campaign is not None and alert.principals >= detection.campaign.members
        alert.severity = max(alert.severity, finding.severity, detection.severity_of(alert), key=SEVERITIES.index)
        return (alert.campaign, SEVERITIES.index(alert.severity)) != before

    def _add_cost(self, request_id: str, extra_usd: float) -> None:
        """Count a request's extra cost once: what was found at its verdict may be found again at its outcome."""
        counted = distinct.digest(request_id)
        if counted not in self.priced:
            self.priced = [*self.priced, counted][-MOST_PRICED:]
            self.alert.est_cost_usd = (self.alert.est_cost_usd or 0.0) + extra_usd

    def members_to_tell(self, finding: Finding, now_ms: int, again_ms: int) -> list[Finding]:
        """Whose alerts are to be told that this campaign stands for them: `finding`, as of each of them.

        All that came before there was a campaign; who was told at `again_ms` or before, when it comes again.
        """
        own = member(finding)
        self.members[own] = self.members.pop(own, _NEVER_TOLD)
        if len(self.members) > MOST_MEMBERS:
            del self.members[next(iter(self.members))]
        if not (self.firing and self.alert.campaign):
            return []
        told = [
            name
            for name, told_ms in self.members.items()
            if told_ms == _NEVER_TOLD or (name == own and told_ms <= again_ms)
        ]
        self.members |= dict.fromkeys(told, now_ms)
        return [finding if name == own else _as_of(name, finding) for name in told]

    def forget(self, tenant: str, principal: str) -> None:
        """Take an erased principal out of what is about others too."""
        self.members.pop(_member(tenant, principal), None)
        named = self.alert.attributes.get("principal_hash", [])
        if principal in named:
            named.remove(principal)


def member(finding: Finding) -> str:
    """Whose finding it is: a principal of a tenant."""
    return _member(finding.tenant_id, finding.principal_hash)


def _member(tenant: str, principal: str) -> str:
    return f"{tenant}\0{principal}"


def _as_of(name: str, finding: Finding) -> Finding:
    """The finding as another member's: without what is this one's request."""
    tenant, _, principal = name.partition("\0")
    return msgspec.structs.replace(
        finding, tenant_id=tenant, principal_hash=principal, request_id="", request_ids=[], event_time=None
    )


def _keep_first(kept: list[str], name: str, most: int) -> None:
    if name and len(kept) < most and name not in kept:
        kept.append(name)
