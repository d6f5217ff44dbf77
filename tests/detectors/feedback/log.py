"""A feedback topic for tests: labels, reports and decisions as the relay would have written them."""

from datetime import timedelta
from typing import Any

import msgspec

from detectors.feedback import Feedback, Rules
from detectors.processor import Output
from detectors.ratchet import Ratchet, RatchetConfig
from detectors.tickets import Canary
from schemas.audits import AuditLabel, AuditTicket, UnsafeReport
from schemas.codec import TICK_HEADERS, encode, read_dead_letter
from schemas.deadletters import DeadLetter
from schemas.signatures import derived, signed
from schemas.thresholds import ThresholdDecision, ThresholdUpdate
from schemas.topics import AUDITS, DEADLETTERS, DECISIONS, FEEDBACK, FINDINGS, REPORTS, THRESHOLDS, Topic
from schemas.verdicts import Finding
from streams.replay import FileRecord
from tests.factories import NOON_MS, at

KEY = "a secret of the tests only"
UPDATE_KEYS = {"1": derived(KEY, "updates")}
DAY = 86_400_000
FLAG = "novelty.flag"

# Moves with a few dozen labels, so that a test need not write thousands. Value in force at first: 0.8.
QUICK = RatchetConfig(
    grid=(0.6, 0.7, 0.8), start=2, ceiling=2, alpha=0.2, delta=0.1, epsilon=0.0, arl=20.0, least_labels=20,
    least_principals=5, votes=1, weight_max=2.0, cool_down_s=3600, soft_s=3600, soft_tenants=2, soft_principals=2,
)  # fmt: skip
APPROVERS = {"ann": "key of ann", "ben": "key of ben"}


def rules(**changes: Any) -> Rules:
    return Rules(**{"key": KEY, "mode": "propose", "ratchets": {FLAG: QUICK}, **changes})


class Log:
    """Appends records, a second of broker time apart; `applied` runs them through a processor."""

    def __init__(self, **changes: Any) -> None:
        self.rules = rules(**changes)
        self.records: list[FileRecord] = []
        self.time_ms = NOON_MS
        self._origin = 0
        self._number = 0

    def append(self, topic: Topic, value: msgspec.Struct | bytes, origin: int | None = None) -> int:
        """Write a record; its place in the topic that it came from."""
        self.time_ms += 1000
        place = self._origin if origin is None else origin
        self._origin = max(self._origin, place + 1)
        body = value if isinstance(value, bytes) else encode(value)
        headers = (("x-origin", f"{topic.name}:0:{place}".encode()),)
        self.records.append(FileRecord(FEEDBACK.name, len(self.records), self.time_ms, body, b"k", headers))
        return place

    def tick(self, after_ms: int) -> None:
        self.time_ms += after_ms
        self.records.append(FileRecord(FEEDBACK.name, len(self.records), self.time_ms, b"", b"", TICK_HEADERS))

    def ticket(self, **fields: Any) -> AuditTicket:
        self._number += 1
        n = self._number
        ticket = AuditTicket(**{
            "ticket_id": f"k{n}", "request_id": f"r{n}", "tenant_id": f"t{n % 40}", "principal_hash": f"p{n % 40}",
            "detector": "novelty", "parameter": FLAG, "router_name": "main", "route": "small", "category": "maths",
            "score": 0.5, "threshold": 0.8, "threshold_version": 0, "issued_at": at(self.time_ms),
            "expires_at": at(self.time_ms) + timedelta(days=1), **fields,
        })  # fmt: skip
        return signed(ticket, derived(KEY, "tickets"), "1")

    def label(self, answer: Any = "safe", judge: str = "desk", **fields: Any) -> AuditLabel:
        made = self.answer(self.ticket(**fields), answer, judge)
        self.append(AUDITS, made)
        return made

    def answer(self, ticket: AuditTicket, answer: Any = "safe", judge: str = "desk") -> AuditLabel:
        return AuditLabel(
            label_id=f"l-{ticket.ticket_id}", ticket=ticket, judge=judge, label=answer, labelled_at=at(self.time_ms)
        )

    def misses(self, number: int = 12, tenant: str = "") -> None:
        """Requests that were unsafe and passed: the quick ratchet's alarm; of many tenants, or of one."""
        for _ in range(number):
            self.label("unsafe", score=0.75, **({"tenant_id": tenant} if tenant else {}))

    def report(self, tenant: str, principal: str = "p1") -> None:
        self.append(
            REPORTS,
            UnsafeReport(
                report_id=f"u{len(self.records)}", request_id="r", tenant_id=tenant, principal_hash=principal,
                time=at(self.time_ms),
            ),
        )  # fmt: skip

    def decide(self, action: Any, actor: str = "ann", **fields: Any) -> ThresholdDecision:
        decision = ThresholdDecision(**{
            "decision_id": f"d{len(self.records)}", "action": action, "actor": actor, "reason": "a test",
            "time": at(self.time_ms), "parameter": FLAG, **fields,
        })  # fmt: skip
        if actor in self.rules.approvers:
            decision = signed(decision, self.rules.approvers[actor].encode(), actor)
        self.append(DECISIONS, decision)
        return decision

    def applied(self) -> tuple[Feedback, list[Output]]:
        feedback = Feedback(self.rules)
        return feedback, feedback.apply(self.records)

    def links(self) -> list[ThresholdUpdate]:
        return links_of(self.applied()[1])


def links_of(outputs: list[Output]) -> list[ThresholdUpdate]:
    return [msgspec.json.decode(o.value, type=ThresholdUpdate) for o in outputs if o.topic == THRESHOLDS.name]


def modes(links: list[ThresholdUpdate]) -> list[tuple[str, float]]:
    return [(link.mode, link.new_value) for link in links]


def canary(number: int, label: Any) -> Canary:
    return Canary(
        request_id=f"c{number}", tenant_id="t9", principal_hash="p9", detector="novelty", score=0.5, label=label
    )


def letters(outputs: list[Output]) -> list[DeadLetter]:
    return [
        read_dead_letter(FileRecord(o.topic, 0, 0, o.value, o.key, o.headers))
        for o in outputs
        if o.topic == DEADLETTERS.name
    ]


def findings(outputs: list[Output]) -> list[Finding]:
    return [msgspec.json.decode(o.value, type=Finding) for o in outputs if o.topic == FINDINGS.name]


def ratchet_of(feedback: Feedback, tenant: str = "") -> Ratchet:
    found = feedback.book.ratchets.of(FLAG, tenant)
    assert found is not None
    return found
