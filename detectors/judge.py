"""One partition of the events topic, judged: exactly one verdict a request, findings, dead letters."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from detectors.budget import Budget, Grant
from detectors.contract import Case, Forgetful, PromptFacts, StreamDetector
from detectors.detections import Detections, shipped
from detectors.joins import Entry, Joins, Key
from detectors.kinds import EVIDENCE, KINDS, OF_MANY
from detectors.longprompts import decode_event
from detectors.panel import PromptPanel
from detectors.processor import Output, Record
from detectors.streamtime import StreamTime
from detectors.tickets import Tickets
from detectors.usual_cost import UsualCost
from detectors.verdict import ask, verdict_of
from schemas.checkpoints import Marker, check_format
from schemas.codec import InvalidRecord, dead_letter, encode, erasure_in, stable_id
from schemas.events import AnyEvent, Outcome, Request, Route, without_text
from schemas.topics import DEADLETTERS, FINDINGS, VERDICTS
from schemas.verdicts import Finding, Reason

MARKER_KEY = b"marker"
BUDGET_KEY = b"budget"
MOST_EARLY_OUTCOMES = 8  # held for a request whose verdict is not given yet


class JudgeLimits(msgspec.Struct, frozen=True):
    """Bounds of the joins, in stream time and in number per partition."""

    join_grace_ms: int = 2_000
    outcome_ttl_ms: int = 300_000
    most_waiting: int = 100_000
    most_settled: int = 200_000
    transformer_per_second: float = 0.0  # of stream time


class Judge:
    """A Processor (detectors/processor.py). State: joins, the stream detectors' keys, counters, stream time."""

    def __init__(
        self, panel: PromptPanel, detectors: Sequence[StreamDetector], limits: JudgeLimits, partition: int = 0,
        detections: Detections | None = None, tickets: Tickets | None = None,
    ) -> None:  # fmt: skip
        """`detections`: where findings are addressed to; None: those that ship. `tickets`: None: no audit."""
        self.offset = 0
        self.time_ms = 0
        self._time = StreamTime()
        self.counters: Counter[str] = Counter()
        self._panel = panel
        self._detectors = detectors
        self._limits = limits
        self._partition = partition
        self._detections = detections or shipped()
        self._tickets = tickets
        self._usual_cost = UsualCost()
        self._keepers: dict[str, StreamDetector | UsualCost | Tickets] = {each.name: each for each in detectors}
        self._keepers[self._usual_cost.name] = self._usual_cost
        if tickets is not None:
            self._keepers[tickets.name] = tickets
        self._joins = Joins()
        self._budget = Budget(limits.transformer_per_second)
        self._out: list[Output] = []
        self._expired_ms = -1  # stream time of the last look at what expires

    # --- the log, in order

    def apply(self, records: Sequence[Record]) -> list[Output]:
        """Judge records; see `Processor.apply`. The text of the whole batch goes through native code at once."""
        records = [record for record in records if record.offset >= self.offset]
        times = self._time.advance(record.timestamp for record in records)
        events = [_decode(record) for record in records]
        requests = [event for event in events if isinstance(event, Request)]
        facts = iter(self._panel.facts(requests, self._grant(times, events)))
        for record, event, time_ms in zip(records, events, times, strict=True):
            self.offset = record.offset + 1
            self.time_ms = time_ms
            self._expire()
            if isinstance(event, Request):
                self._on_request(event, next(facts), record.offset)
            elif isinstance(event, Route):
                self._on_route(event, record.offset)
            elif isinstance(event, Outcome):
                self._on_outcome(event, record.offset)
            elif event is not None:
                self._dead_letter(event, record, "decode")
            elif record.value:
                self._on_erasure(record)
        out, self._out = self._out, []
        return out

    def _grant(self, times: Sequence[int], events: Sequence[AnyEvent | InvalidRecord | None]) -> Grant:
        """The second stage's budget at the stream time of each request."""
        asked = [time for time, event in zip(times, events, strict=True) if isinstance(event, Request)]

        def grant(i: int) -> bool:
            granted = self._budget.take(asked[i])
            self.counters["transformer_prompts.done" if granted else "transformer_prompts.over_budget"] += 1
            return granted

        return grant

    def _dead_letter(self, error: InvalidRecord, record: Record, stage: str) -> None:
        self.counters[f"dead_letters.{stage}.{error.reason}"] += 1
        self._out.append(Output(DEADLETTERS.name, *dead_letter(error, record, stage), record.partition))

    # --- joins

    def _on_request(self, event: Request, facts: PromptFacts, offset: int) -> None:
        key = (event.principal_hash, event.request_id)
        known = self._joins.waiting.get(key) or self._joins.settled.get(key)
        if known is not None and known.request is not None:
            if known.request.event_id == event.event_id:
                self.counters["oddities.duplicate_request"] += 1
                return
            # Another request under the same id: a client may choose ids, so it is judged like any other.
            self.counters["oddities.request_id_reused"] += 1
            if known.settled_ms:
                self._joins.drop(key)
            else:
                self._give_verdict(key, known)
                self._joins.drop(key)
            known = None
        entry = known or self._joins.open(key, self.time_ms, offset)
        entry.request, entry.facts, entry.request_offset = without_text(event), facts, offset
        self._joins.touch(key)
        if entry.route is not None:
            self._give_verdict(key, entry)

    def _on_route(self, event: Route, offset: int) -> None:
        key = (event.principal_hash, event.request_id)
        entry = self._entry(key, offset)
        if not self._joins.is_new(key, entry, event.event_id):
            self.counters["oddities.duplicate_route"] += 1
            return
        is_first, entry.route = entry.route is None, event
        if entry.settled_ms:  # after its grace, a further attempt or a fail-over: judged, but the verdict stands
            self.counters["joins.route_late" if is_first else "oddities.further_route"] += 1
            self._judge_case(entry, PromptFacts(), None, event.event_id)
        elif entry.request is not None:
            self._give_verdict(key, entry)

    def _on_outcome(self, event: Outcome, offset: int) -> None:
        key = (event.principal_hash, event.request_id)
        entry = self._entry(key, offset)
        if not self._joins.is_new(key, entry, event.event_id):
            self.counters["oddities.duplicate_outcome"] += 1
        elif entry.settled_ms:
            self._judge_case(entry, PromptFacts(likeness=entry.likeness), event, event.event_id)
        elif len(entry.outcomes) < MOST_EARLY_OUTCOMES:
            entry.outcomes = [*entry.outcomes, event]
        else:
            self.counters["oddities.early_outcome_dropped"] += 1

    def _on_erasure(self, record: Record) -> None:
        """Forget a principal. Requests of it that still wait get no verdict: they have been erased too."""
        try:
            erasure = erasure_in(record)
        except InvalidRecord as error:
            self._dead_letter(error, record, "decode")
            return
        if erasure is None:
            return
        tenant, principal = erasure.tenant_id, erasure.principal_hash
        self.counters["oddities.erased_principal"] += 1
        self.counters["joins.erased"] += self._joins.forget(tenant, principal)
        for detector in self._detectors:
            if isinstance(detector, Forgetful):
                detector.forget(tenant, principal)
        if self._tickets is not None:
            self._tickets.forget(tenant, principal)

    def _entry(self, key: Key, offset: int) -> Entry:
        """The entry of a request, waiting or settled; a new one where there is none."""
        joins = self._joins
        return joins.waiting.get(key) or joins.settled.get(key) or joins.open(key, self.time_ms, offset)

    def _expire(self) -> None:
        limits, joins = self._limits, self._joins
        in_bounds = len(joins.waiting) <= limits.most_waiting and len(joins.settled) <= limits.most_settled
        if self.time_ms == self._expired_ms and in_bounds:
            return
        self._expired_ms = self.time_ms
        for key in joins.overdue(self.time_ms - limits.join_grace_ms, limits.most_waiting):
            entry = joins.waiting[key]
            if entry.request is None:
                self.counters["joins.request_missing"] += 1
                joins.drop(key)
            else:
                self.counters["joins.route_missing"] += 1
                self._give_verdict(key, entry)
        if cut := joins.forget_settled(self.time_ms - limits.outcome_ttl_ms, limits.most_settled):
            self.counters["joins.evicted"] += cut

    # --- judging

    def _give_verdict(self, key: Key, entry: Entry) -> None:
        request, facts = entry.request, entry.facts
        if request is None or facts is None:  # callers see to it
            raise AssertionError("a verdict needs its request")
        outcomes = entry.outcomes
        self._judge_case(entry, facts, None, request.event_id)
        entry.flagged = self._emit_verdict(entry, request, facts)
        if not entry.flagged:
            self._usual_cost.learn(entry.route)
        if entry.route is not None:
            self.counters["joins.met"] += 1
        self._joins.settle(key, self.time_ms, self.offset - 1)
        for outcome in outcomes:
            self._judge_case(entry, PromptFacts(likeness=entry.likeness), outcome, outcome.event_id)

    def _judge_case(self, entry: Entry, facts: PromptFacts, outcome: Outcome | None, cause: str) -> None:
        """Ask every stream detector, in order; answers are added to `facts`, findings go out."""
        if entry.request is None:
            raise AssertionError("a case needs its request")
        case = Case(
            time=self.time_ms / 1000, request=entry.request, route=entry.route, outcome=outcome, prompt=facts,
            flagged=any(reason.flagged for reason in facts.reasons),
        )  # fmt: skip
        ask(self._panel.thresholds, self._detectors, case)
        for name in facts.failed:
            self.counters[f"detector_errors.{name}"] += 1
        for name in facts.unable if outcome is None else ():
            self.counters[f"detector_unable.{name}"] += 1
        known = next((reason for reason in facts.reasons if reason.flagged and reason.trigger_id), None)
        for reason in facts.reasons:
            if _is_evidence(reason) and known is not None:
                if known.stage != "fragment":  # the catalogue says what this is: there is nothing to discover
                    continue
                reason.trigger_id = known.trigger_id
            if reason.flagged or _is_evidence(reason):
                self._emit_finding(reason, case, cause)
        facts.reasons = [reason for reason in facts.reasons if not _is_evidence(reason)]
        if self._tickets is not None and outcome is not None and not entry.flagged:
            self._out += self._tickets.report(entry.request, entry.route, outcome, self.time_ms)

    def _emit_verdict(self, entry: Entry, request: Request, facts: PromptFacts) -> bool:
        """Put the verdict out; whether it is flagged."""
        route = entry.route
        verdict = verdict_of("verdict", self._panel, request, facts, _when(self.time_ms))
        verdict.route_missing, verdict.partition, verdict.offset = (
            route is None, self._partition, entry.request_offset,
        )  # fmt: skip
        self.counters[f"verdicts.{verdict.decision}"] += 1
        if verdict.unjudged_reason:
            self.counters[f"unjudged.{verdict.unjudged_reason}"] += 1
        if route is not None:
            verdict.router_name, verdict.router_version = route.router_name, route.router_version
            verdict.selected_model, verdict.tier, verdict.tier_rank = (
                route.selected_model, route.tier, route.tier_rank,
            )  # fmt: skip
            verdict.difficulty_score = route.difficulty_score
            verdict.cost_estimate_usd = route.cost_estimate_usd
            verdict.cache_hit, verdict.fallback_from = route.cache_hit, route.fallback_from
        self._out.append(Output(VERDICTS.name, verdict.verdict_id.encode(), encode(verdict), (), self._partition))
        if self._tickets is not None:
            self._out += self._tickets.see(verdict, route.category if route else "", self.time_ms)
        return verdict.decision == "flagged"

    def _emit_finding(self, reason: Reason, case: Case, cause: str) -> None:
        request, route = case.request, case.route
        if reason.kind in OF_MANY:
            self._emit_of_many(reason, case, cause)
            return
        finding = Finding(
            finding_id=stable_id("finding", request.tenant_id, request.principal_hash, cause, reason.kind),
            kind=reason.kind,
            category=KINDS[reason.kind],
            severity="info",
            time=_when(self.time_ms),
            labels={},
            detector=reason.detector,
            detector_version=reason.detector_version,
            tenant_id=request.tenant_id,
            principal_hash=request.principal_hash,
            router_name=route.router_name if route else "",
            gateway_name=request.gateway_name,
            request_id=request.request_id,
            event_time=request.event_time,
            score=reason.score,
            threshold=reason.threshold,
            threshold_version=reason.threshold_version,
            direction=reason.direction,
            stage=reason.stage,
            expected=reason.expected,
            seen=reason.seen,
            window=reason.window,
            trigger_id=reason.trigger_id,
            trigger_version=reason.trigger_version,
            catalogue_version=case.prompt.catalogue_version,
            extra_cost_usd=self._usual_cost.beyond(case),
            request_ids=[request.request_id],
            likeness=f"{case.prompt.likeness:016x}" if case.prompt.likeness else "",
            note=reason.note,
            use=reason.use,
        )
        self.counters[f"findings.{reason.detector}.{reason.kind}"] += 1
        if _is_evidence(reason):  # one partition of the fleet lane has all of a router: a text has several windows
            self._out.append(Output(FINDINGS.name, finding.router_name.encode(), encode(finding)))
        else:
            self._out += self._detections.records(finding)

    def _emit_of_many(self, reason: Reason, case: Case, cause: str) -> None:
        """What is about neither the request nor its principal names neither."""
        request = case.request
        finding = Finding(
            finding_id=stable_id("finding", request.tenant_id, request.principal_hash, cause, reason.kind),
            kind=reason.kind,
            category=KINDS[reason.kind],
            severity="info",
            time=_when(self.time_ms),
            labels={},
            detector=reason.detector,
            detector_version=reason.detector_version,
            levels=reason.levels,
        )
        self.counters[f"findings.{reason.detector}.{reason.kind}"] += 1
        self._out.append(Output(FINDINGS.name, finding.kind.encode(), encode(finding)))

    # --- state

    def waiting(self) -> bool:
        """Whether some request or route still waits for its partner."""
        return bool(self._joins.waiting)

    def holds(self) -> dict[str, int]:
        """See `Processor.holds`."""
        return {
            "state_keys.waiting": len(self._joins.waiting),
            "state_keys.settled": len(self._joins.settled),
        }

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """See `Processor.changes`."""
        changes = list(self._joins.changes())
        for keeper in self._keepers.values():
            prefix = f"d/{keeper.name}/"
            changes += [((prefix + key).encode(), value) for key, value in keeper.changes()]
        changes += [(BUDGET_KEY, self._budget.pack()), (MARKER_KEY, self._marker())]
        return changes

    def _marker(self) -> bytes:
        return msgspec.msgpack.encode(
            Marker(
                offset=self.offset, time_ms=self.time_ms, stamp_ms=self._time.stamp_ms, counters=dict(self.counters)
            )
        )

    def load(self, key: bytes, value: bytes | None) -> None:
        """See `Processor.load`."""
        if key == MARKER_KEY and value is not None:
            marker = msgspec.msgpack.decode(value, type=Marker)
            check_format(marker)
            self.offset, self.time_ms, self.counters = marker.offset, marker.time_ms, Counter(marker.counters)
            self._time = StreamTime(marker.time_ms, marker.stamp_ms)
        elif key == BUDGET_KEY and value is not None:
            self._budget.load(value)
        elif not self._joins.load(key, value):
            name, _, rest = key.decode().removeprefix("d/").partition("/")
            if (keeper := self._keepers.get(name)) is not None:
                keeper.load(rest, value)

    def loaded(self) -> None:
        """See `Processor.loaded`."""
        self._joins.loaded()

    def snapshot(self) -> dict[bytes, bytes]:
        """See `Processor.snapshot`."""
        state = dict(self._joins.snapshot())
        for keeper in self._keepers.values():
            state |= {f"d/{keeper.name}/{key}".encode(): value for key, value in keeper.snapshot().items()}
        return state | {BUDGET_KEY: self._budget.pack(), MARKER_KEY: self._marker()}


def _decode(record: Record) -> AnyEvent | InvalidRecord | None:
    try:
        return decode_event(record)
    except InvalidRecord as error:
        return error


def _when(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def _is_evidence(reason: Reason) -> bool:
    return reason.kind in EVIDENCE
