"""Labels, reports and decisions, in the one order of the feedback topic, to links of the chain of thresholds."""

import json
import math
from collections import Counter
from datetime import UTC, datetime

import msgspec

from detectors.detections import Detections, shipped
from detectors.feedback.answers import Answers, BadTicket, milliseconds
from detectors.feedback.book import Book
from detectors.feedback.chain import topic_key
from detectors.feedback.people import People, Refused
from detectors.feedback.rules import Rules
from detectors.feedback.silence import Silence
from detectors.kinds import KINDS
from detectors.processor import OneByOne, Output, Record
from detectors.ratchet import TrustedLabel, UntrustedReport
from detectors.recent import RecentIds
from detectors.routing import RouteLabel, Routing, RoutingConfig
from detectors.tickets import MOST_WEIGHT
from schemas.audits import AuditLabel, AuditTicket, UnsafeReport
from schemas.checkpoints import Marker, check_format
from schemas.codec import TICK_TYPE, InvalidRecord, dead_letter, decode, encode, stable_id
from schemas.signatures import signer
from schemas.thresholds import ThresholdDecision
from schemas.topics import AUDITS, DEADLETTERS, DECISIONS, REPORTS, THRESHOLDS, TICKETS
from schemas.verdicts import Finding

ORIGIN = "x-origin"  # header: topic, partition and offset of the record that the relay took
MOST_BYTES = 256 << 10  # of a value: a label is some thousand, and the topic takes less than a MiB
MOST_ROUTERS = 64
REMEMBERED_DECISIONS = 4_096
DECISION_MS = 3_600_000  # a decision that is older, or newer by more, is not carried out: it may be a copy

MARKER_KEY, ORIGINS_KEY, SILENCE_KEY = b"marker", b"origins", b"silence"
_ROUTING = b"r/"

_encode_state = msgspec.msgpack.Encoder().encode
_decode_marker = msgspec.msgpack.Decoder(Marker).decode
_decode_origins = msgspec.msgpack.Decoder(dict[str, int]).decode
_decode_silence = msgspec.msgpack.Decoder(Silence).decode


class Feedback(OneByOne):
    """A Processor (detectors/processor.py) over the feedback topic, which has one partition."""

    def __init__(self, rules: Rules, detections: Detections | None = None) -> None:
        """`detections`: where findings are addressed to; None: those that ship."""
        super().__init__()
        self.book = Book(rules)
        self._people = People(self.book)
        self.answers = Answers(rules)
        self.routing: dict[str, Routing] = {}
        self._rules = rules
        self._approver_keys = {name: key.encode() for name, key in rules.approvers.items()}
        self._detections = detections or shipped()
        self._origins: dict[str, int] = {}  # place -> next offset: what the relay sends again is skipped
        self._silence = Silence()
        self._decided = RecentIds(REMEMBERED_DECISIONS)
        self._routed: dict[tuple[str, str], None] = {}  # router, cell: changed
        self._loading: dict[str, dict[str, bytes]] = {}

    # --- the log, in order

    def _take(self, record: Record) -> None:
        self.time_ms = max(self.time_ms, record.timestamp)
        self.answers.expire(self.time_ms)
        if record.value or ("ce_type", TICK_TYPE) not in record.headers:
            self._on_record(record)
        if self._silence.due(self.time_ms, self._rules.silence_ms):
            self._found("judges_failing", "silent", "tickets are drawn, and nobody answers", record)
        sensitivity = self.answers.sensitivity()
        self.book.ratchets.set_sensitivity(1.0 if sensitivity is None else sensitivity)
        self.book.advance(self.time_ms, sensitivity is not None)
        for update in self.book.chain.links:
            self.counters[f"threshold_updates.{update.mode}"] += 1
            self._out.append(Output(THRESHOLDS.name, topic_key(update), encode(update), (), 0))
        self.book.chain.links = []

    def _on_record(self, record: Record) -> None:
        try:
            topic = self._origin(record)
            if topic and len(record.value or b"") > MOST_BYTES:
                raise InvalidRecord("too_large", record, detail=f"over {MOST_BYTES} bytes")
            if topic == AUDITS.name:
                self._on_label(decode(AuditLabel, record), record)
            elif topic == REPORTS.name:
                self._on_report(decode(UnsafeReport, record))
            elif topic == DECISIONS.name:
                self._on_decision(decode(ThresholdDecision, record), record)
            elif topic == TICKETS.name:
                self._on_ticket(decode(AuditTicket, record), record)
            elif topic:
                raise InvalidRecord("bad_envelope", record, ORIGIN, "a topic that nothing is taken from")
        except InvalidRecord as error:
            self.counters[f"dead_letters.audit.{error.reason}"] += 1
            self._out.append(Output(DEADLETTERS.name, *dead_letter(error, record, "audit"), 0))

    def _origin(self, record: Record) -> str:
        """The topic that the relay took it from; empty where it was taken before."""
        text = (dict(record.headers).get(ORIGIN) or b"").decode("utf-8", "replace")
        topic, _, place = text.partition(":")
        partition, _, offset = place.partition(":")
        if not (partition.isdecimal() and offset.isdecimal()):
            raise InvalidRecord("bad_envelope", record, ORIGIN, "not from the relay")
        place = f"{topic}:{partition}"
        if int(offset) < self._origins.get(place, 0):
            return ""
        self._origins[place] = int(offset) + 1
        return topic

    def _on_ticket(self, ticket: AuditTicket, record: Record) -> None:
        if not self.answers.is_ours(ticket):
            raise InvalidRecord("bad_ticket", record, detail="the ticket is not as it was signed")
        if not self.answers.has(ticket.ticket_id):  # the relay reads topics in no order
            self._silence.on_ticket(self.time_ms, milliseconds(ticket.expires_at))

    def _on_label(self, label: AuditLabel, record: Record) -> None:
        ticket = label.ticket
        try:
            result = self.answers.take(label, self.time_ms)
        except BadTicket as bad:
            self.counters["audit_labels.refused"] += 1
            self._found("feedback_poisoning", bad.stage, str(bad), record, ticket)
            raise InvalidRecord("bad_ticket", record, "$.ticket", str(bad)) from None
        self.counters[f"audit_labels.{result}"] += 1
        self._silence.on_answer()
        if result == "worse":
            self._found("judges_failing", "worse", f"of canaries, {label.judge} misses more than it did", record)
        if result != "counted":
            return
        unsafe = None if label.label == "unknown" else label.label == "unsafe"
        self.book.ratchets.take(
            ticket.parameter,
            TrustedLabel(
                time=self.time_ms / 1000, tenant_id=ticket.tenant_id, principal_hash=ticket.principal_hash,
                score=ticket.score, unsafe=unsafe, weight=ticket.weight,
            ),
        )  # fmt: skip
        if unsafe and self.book.ratchets.stuck(ticket.parameter, ticket.tenant_id):
            note = "as strict as it goes, and trusted labels still show more misses than are allowed"
            self._found("threshold_at_floor", ticket.parameter, note, record, ticket)
        routing = self._routing_of(ticket.router_name) if ticket.route else None
        if routing is not None:
            routing.take(
                RouteLabel(
                    tenant_id=ticket.tenant_id, principal_hash=ticket.principal_hash, route=ticket.route,
                    category=ticket.category, unsafe=unsafe, weight=ticket.weight,
                )
            )  # fmt: skip
            self._routed[ticket.router_name, json.dumps((ticket.route, ticket.category))] = None

    def _routing_of(self, router: str) -> Routing | None:
        """What is known of a router's routes; None where there is no room for another router."""
        if router not in self.routing and len(self.routing) < MOST_ROUTERS:
            self.routing[router] = Routing(self._routing_config())
        return self.routing.get(router)

    def _routing_config(self) -> RoutingConfig:
        return RoutingConfig(ladder=self._rules.ladder, weight_max=MOST_WEIGHT)

    def _on_report(self, report: UnsafeReport) -> None:
        """Its request was not flagged, so it scored below every threshold: that much of it is ours to know."""
        self.counters["audit_labels.untrusted"] += 1
        self.book.ratchets.take_untrusted(
            UntrustedReport(
                time=self.time_ms / 1000, tenant_id=report.tenant_id, principal_hash=report.principal_hash,
                score=-math.inf,
            )
        )  # fmt: skip

    def _on_decision(self, decision: ThresholdDecision, record: Record) -> None:
        if self._approver_keys and signer(decision, self._approver_keys) != decision.actor:
            note = "a decision that its actor has not signed"
            self._found("feedback_poisoning", "forged decision", note, record)
            raise InvalidRecord("refused", record, "$.signature", "not signed by its actor")
        if abs(decision.time.timestamp() * 1000 - self.time_ms) > DECISION_MS:
            raise InvalidRecord("refused", record, "$.time", "made more than an hour from the broker's time")
        if not self._decided.add(decision.decision_id):
            raise InvalidRecord("refused", record, "$.decision_id", "decided before")
        try:
            self._people.decide(decision, self.time_ms)
        except Refused as error:
            raise InvalidRecord("refused", record, detail=str(error)) from None

    def _found(self, kind: str, stage: str, note: str, record: Record, ticket: AuditTicket | None = None) -> None:
        request = ticket.request_id if ticket else ""
        finding = Finding(
            finding_id=stable_id(kind, record.topic, str(record.partition), str(record.offset)),
            kind=kind,
            category=KINDS[kind],
            severity="info",
            time=datetime.fromtimestamp(self.time_ms / 1000, UTC),
            labels={},
            detector="feedback",
            detector_version="1",
            tenant_id=ticket.tenant_id if ticket else "",
            principal_hash=ticket.principal_hash if ticket else "",
            request_id=request,
            request_ids=[request] if request else [],
            stage=stage,
            note=note,
        )
        self.counters[f"findings.feedback.{kind}"] += 1
        self._out += self._detections.records(finding)

    # --- state

    def waiting(self) -> bool:
        """See `Processor.waiting`."""
        return self._silence.waits or self.book.waiting()

    def holds(self) -> dict[str, int]:
        """See `Processor.holds`."""
        return {"state_keys.answered": len(self.answers), "state_keys.ratchets": len(self.book.ratchets)}

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """See `Processor.changes`."""
        routed, self._routed = self._routed, {}
        cells = {name: self.routing[name].snapshot() for name in {router for router, _ in routed}}
        return [
            *self.answers.changes(),
            *self.book.changes(),
            *self._decided.changes(),
            *(
                (_routing_key(router, cell), cells[router][cell])
                for router, cell in routed
                if cell in cells[router]
            ),
            (ORIGINS_KEY, _encode_state(self._origins)),
            (SILENCE_KEY, _encode_state(self._silence)),
            (MARKER_KEY, self._marker()),
        ]

    def snapshot(self) -> dict[bytes, bytes]:
        """See `Processor.snapshot`."""
        cells = {
            _routing_key(router, cell): value
            for router, routing in self.routing.items()
            for cell, value in routing.snapshot().items()
        }
        return {
            **dict(self.answers.snapshot()), **dict(self.book.snapshot()), **dict(self._decided.snapshot()),
            **cells, ORIGINS_KEY: _encode_state(self._origins), SILENCE_KEY: _encode_state(self._silence),
            MARKER_KEY: self._marker(),
        }  # fmt: skip

    def load(self, key: bytes, value: bytes | None) -> None:
        """See `Processor.load`."""
        if key == MARKER_KEY and value is not None:
            marker = _decode_marker(value)
            check_format(marker)
            self.offset, self.time_ms, self.counters = marker.offset, marker.time_ms, Counter(marker.counters)
        elif key == ORIGINS_KEY and value is not None:
            self._origins = _decode_origins(value)
        elif key == SILENCE_KEY and value is not None:
            self._silence = _decode_silence(value)
        elif key.startswith(_ROUTING) and value is not None:
            router, cell = json.loads(key[2:])
            self._loading.setdefault(router, {})[cell] = value
        elif not self.answers.load(key, value) and value is not None and not self.book.load(key, value):
            self._decided.load(key, value)

    def loaded(self) -> None:
        """See `Processor.loaded`."""
        self._decided.loaded()
        for router, cells in self._loading.items():
            self.routing[router] = Routing.restore(self._routing_config(), cells)
        self._loading = {}

    def _marker(self) -> bytes:
        return _encode_state(Marker(offset=self.offset, time_ms=self.time_ms, counters=dict(self.counters)))


def _routing_key(router: str, cell: str) -> bytes:
    return _ROUTING + json.dumps((router, cell)).encode()
