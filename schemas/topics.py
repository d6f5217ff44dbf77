"""Every topic in one table: record, key, policy, and who may write it."""

from dataclasses import dataclass, field
from typing import Literal

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic's contract. `partitioned_like` topics must have the events topic's partition count."""

    name: str
    record: str
    key: str
    writers: str  # who may produce: an ACL, since trust is where a record came from
    like_events: bool = False  # the same number of partitions as the events topic
    partitions: int = 1  # where not `like_events`
    compacted: bool = False
    retention_ms: int = 7 * DAY_MS
    timestamps: Literal["LogAppendTime", "CreateTime"] = "LogAppendTime"
    config: dict[str, str] = field(default_factory=dict)


_CHECKPOINT_CONFIG = {
    "segment.bytes": str(8 << 20),
    "segment.ms": "60000",
    "min.cleanable.dirty.ratio": "0.2",
    "max.compaction.lag.ms": "60000",
    "delete.retention.ms": str(DAY_MS),  # longer than any load, or a tombstone is missed
}

EVENTS = Topic("router.events.v1", "Request | Route | Outcome", "principal_hash", "gateways", like_events=True,
               config={"max.message.bytes": str(2 << 20)})  # fmt: skip
AUDITS = Topic("router.audits.v1", "AuditLabel", "ticket_id", "judges only", partitions=1)
REPORTS = Topic("pointsman.reports.v1", "UnsafeReport", "tenant_id", "pointsman detect", partitions=1)
DECISIONS = Topic("pointsman.decisions.v1", "ThresholdDecision", "decision_id", "approvers", partitions=1)
# Labels, reports and decisions in the one order in which they were taken: what thresholds are a function of.
FEEDBACK = Topic("pointsman.feedback.v1", "a record of audits, reports, decisions or tickets, with its origin",
                 "the original key", "pointsman feedback", partitions=1, retention_ms=400 * DAY_MS)  # fmt: skip
TICKETS = Topic("pointsman.tickets.v1", "AuditTicket", "ticket_id", "pointsman detect", partitions=1)
VERDICTS = Topic("pointsman.verdicts.v1", "Verdict", "verdict_id", "pointsman detect", like_events=True)
FINDINGS = Topic("pointsman.findings.v1", "Finding", "alert fingerprint, or window",
                 "pointsman detect and fleet", like_events=True)  # fmt: skip
DEADLETTERS = Topic("pointsman.deadletters.v1", "the original bytes", "the original key", "pointsman",
                    like_events=True, retention_ms=30 * DAY_MS,
                    config={"max.message.bytes": str(4 << 20)})  # fmt: skip
CHECKPOINTS = Topic("pointsman.checkpoints.v1", "state delta, marker last", "state key", "pointsman detect",
                    like_events=True, compacted=True, config=_CHECKPOINT_CONFIG)  # fmt: skip
FLEET_CHECKPOINTS = Topic("pointsman.fleet-checkpoints.v1", "state delta, marker last", "state key",
                          "pointsman fleet", like_events=True, compacted=True,
                          config=_CHECKPOINT_CONFIG)  # fmt: skip
FEEDBACK_CHECKPOINTS = Topic("pointsman.feedback-checkpoints.v1", "state delta, marker last", "state key",
                             "pointsman feedback", partitions=1, compacted=True,
                             config=_CHECKPOINT_CONFIG)  # fmt: skip
SUPPRESSIONS = Topic("pointsman.suppressions.v1", "Suppression", "suppression_id", "operators", compacted=True)
# Tombstones of principals; read by whatever stores or replays. They are in the events and the findings too, where
# state that is a function of those logs must forget.
ERASURES = Topic("pointsman.erasures.v1", "Erasure", "tenant and principal_hash", "pointsman erase", compacted=True)
ALERTS = Topic("pointsman.alerts.v1", "Alert", "fingerprint", "pointsman fleet", like_events=True)
THRESHOLDS = Topic("pointsman.thresholds.v1", "ThresholdUpdate", "state, scope and parameter",
                   "pointsman feedback", compacted=True)  # fmt: skip
# What the fleet lane found, for the review queue: apart from the catalogue, so that only reviewers write that.
PROPOSALS = Topic("pointsman.proposals.v1", "Trigger", "trigger_id", "pointsman fleet", compacted=True)
TRIGGERS = Topic("pointsman.triggers.v1", "Trigger", "trigger_id", "reviewers only", compacted=True,
                 config={"max.message.bytes": str(2 << 20)})  # fmt: skip

ALL = (EVENTS, AUDITS, REPORTS, DECISIONS, FEEDBACK, TICKETS, VERDICTS, FINDINGS, DEADLETTERS, CHECKPOINTS,
       FLEET_CHECKPOINTS, FEEDBACK_CHECKPOINTS, SUPPRESSIONS, ERASURES, ALERTS, THRESHOLDS, PROPOSALS,
       TRIGGERS)  # fmt: skip


def named(topic: Topic, suffix: str = "") -> str:
    """The topic's name in one installation: a suffix keeps several of them apart on a shared cluster."""
    return topic.name + suffix
