"""Unseen triggers, second level: candidates of all partitions are added up, told from content, and tried.

    (candidate) ──► gathering ── contexts diverse, proof ──► tried ── moves the probes ──► named
                        ▲                                      │
                        └──────── it does not: twice the bar ──┘

A campaign is a text: a window that comes in is a use of the text that it is most like (texts.py), since each detect
lane cuts and names windows by what it saw first, and a trigger mutates. What tells a trigger from content that
happens to lift is that its contexts have nothing to do with each other, and that it lifts in nearly all of them: a
sequential test on the residuals says when it is worth a question to the router. Then a transplant
(transplant.py): wanted and answered through the log, so that the state stays a function of it. Without a router to
ask, or the window's text, or while the queries are spent, the residuals themselves are tested, which is weaker:
content that lifts in all its contexts passes.
"""

import math
from collections import Counter
from datetime import UTC, datetime, timedelta

import msgspec

from detectors.detections import Detections
from detectors.discovery.campaign import MOST_CONTEXTS, Campaign, Use
from detectors.discovery.texts import Texts
from detectors.discovery.transplant import LOOKS, is_hopeless, log_wealth
from detectors.keyed import Keyed
from detectors.kinds import KINDS
from detectors.processor import OneByOne, Output, Record
from detectors.thresholds import Thresholds
from schemas.checkpoints import Marker, check_format
from schemas.codec import InvalidRecord, decode, encode, erasure_in, stable_id
from schemas.topics import FINDINGS, PROPOSALS
from schemas.triggers import Trigger
from schemas.verdicts import Finding, Transplant, WindowUse

STATE = b"campaigns/"  # prefix of its state keys, none of which is the alerting's
MARKER_KEY = STATE + b"marker"
CAPACITY = 16_384  # windows, at about 2 kB
FORGET_MS = 86_400_000  # without a use; with it goes the window's text
STALE_USES = 60  # without enough contexts: it is content
OF_ONE = 4  # contexts more that a window needs which is of one tenant, or mostly of one caller
HOPELESS_FAILS = 2  # of a transplant that moved nothing
QUERIES = 200.0  # that may be saved up
FEW_QUERIES = 32.0  # left, below which windows need up to three times the evidence
ENOUGH = 20  # queries, to find what is there
LEAST_TESTS = 100
_FALLBACK_CONTEXTS = 12
_FALLBACK_TENANTS = 3
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _State(msgspec.Struct, array_like=True):
    marker: Marker
    queries: float
    tests: int


_encode = msgspec.msgpack.Encoder().encode
_decode_campaign = msgspec.msgpack.Decoder(Campaign).decode
_decode_state = msgspec.msgpack.Decoder(_State).decode


class Campaigns(OneByOne):
    """A Processor (detectors/processor.py) over one partition of the findings topic, beside the alerting."""

    def __init__(
        self, detections: Detections, thresholds: Thresholds, transplants: bool, partition: int = 0,
        capacity: int = CAPACITY,
    ) -> None:  # fmt: skip
        """`transplants`: somebody answers them."""
        super().__init__()
        self._detections = detections
        self._thresholds = thresholds
        self._transplants = transplants
        self._partition = partition
        self._campaigns: Keyed[Campaign] = Keyed(f"{STATE.decode()}w/", capacity, _encode, _decode_campaign)
        self._texts = Texts()
        self._queries = 0.0
        self._tests = 0

    # --- the log, in order

    def _take(self, record: Record) -> None:
        """What is none of ours, or cannot be read, is the alerting's to report."""
        self.time_ms = max(self.time_ms, record.timestamp)
        if record.value and record.headers and self._forget(record):
            return
        if record.value and (b'"use":' in record.value or b'"transplant":' in record.value):
            try:
                finding = decode(Finding, record)
            except InvalidRecord:
                return
            if finding.use is not None and finding.kind == "trigger_candidate":
                self._on_use(finding, finding.use)
            elif finding.transplant is not None and finding.kind == "transplant":
                self._on_transplant(finding, finding.transplant)

    def _forget(self, record: Record) -> bool:
        """Whether the record is an erasure; then its principal's uses go, and windows that nobody else used."""
        try:
            erasure = erasure_in(record)
        except InvalidRecord:
            return True
        if erasure is None:
            return False
        who = erasure.tenant_id, erasure.principal_hash
        for window, campaign in list(self._campaigns.items()):
            kept = [use for use in campaign.uses if (use.tenant_id, use.principal_hash) != who]
            if not kept:
                self._campaigns.drop(window)
                self._texts.drop(window)
            elif len(kept) < len(campaign.uses):
                campaign.uses = kept
                self._keep(campaign)
        return True

    def _on_use(self, finding: Finding, use: WindowUse) -> None:
        self._queries = min(QUERIES, self._queries + self._thresholds["discovery.queries"] * use.requests)
        campaign = self._campaign_of(finding, use)
        if any(known.finding_id == finding.finding_id for known in campaign.uses):
            return
        known_use = Use(
            finding.finding_id, finding.request_id, finding.tenant_id, finding.principal_hash,
            finding.router_name, _milliseconds(finding.event_time), finding.trigger_id,
        )  # fmt: skip
        campaign.last_ms = self.time_ms
        campaign.add_window(use.tokens)
        campaign.add(known_use)
        if campaign.state:
            self._say(campaign, known_use)
        else:
            self._gather(campaign, finding, use)
        self._keep(campaign)

    def _campaign_of(self, finding: Finding, use: WindowUse) -> Campaign:
        """That of the text which the window is most like, whatever the lane named it by; else a new one."""
        campaign = self._campaigns.get(next(iter(self._texts.like(use.tokens)), ""))
        if campaign is not None and self.time_ms - campaign.last_ms <= FORGET_MS:
            return campaign
        window = finding.window if campaign is None else campaign.window
        if campaign is None and self._campaigns.get(window) is not None:  # another text's
            window = stable_id("window", finding.window, finding.finding_id)[:8]
        return Campaign(window=window, direction=finding.direction, last_ms=self.time_ms)

    def _keep(self, campaign: Campaign) -> None:
        self._texts.put(campaign.window, campaign.tokens)
        for gone in self._campaigns.put(campaign.window, campaign, bool(campaign.state or campaign.asked)):
            self._texts.drop(gone)

    def _gather(self, campaign: Campaign, finding: Finding, use: WindowUse) -> None:
        is_new = campaign.gather(finding, use, self._thresholds["discovery.lift"])
        if campaign.asked:
            return
        are_alike = campaign.contexts_alike >= self._thresholds["discovery.alike"]
        if campaign.count >= STALE_USES or (are_alike and len(campaign.contexts) >= MOST_CONTEXTS):
            campaign.begin_anew()
        elif is_new and not are_alike:
            self._consider(campaign)

    def _consider(self, campaign: Campaign) -> None:
        """Try it, where its contexts and its evidence allow."""
        values = self._thresholds
        inside = campaign.place == "inside"
        needed = values["discovery.inner_contexts" if inside else "discovery.contexts"]
        if len(campaign.contexts) < needed + (OF_ONE if campaign.is_of_one else 0):
            return
        scarce = 1 + 2 * max(0.0, 1 - self._queries / FEW_QUERIES) if self._transplants else 1
        bar = values["discovery.proof"] * 2**campaign.fails * scarce
        if campaign.log_wealth < bar * (2 if campaign.usual else 1):
            return
        margin = values["discovery.inner_lift" if inside else "discovery.lift"]
        if self._transplants and campaign.text and campaign.scale > 0:
            if self._ask(campaign, margin):
                return
            self.counters["transplants.over_budget"] += 1
        if (
            not campaign.denied
            and len(campaign.contexts) >= _FALLBACK_CONTEXTS
            and campaign.tenants >= _FALLBACK_TENANTS
            and campaign.log_wealth >= self._needed()
        ):
            self._name(campaign, "residuals", [])

    def _needed(self) -> float:
        """Log wealth that makes all false names together as rare as they may be (a union bound over the tests)."""
        return math.log(max(self._tests, LEAST_TESTS) / self._thresholds["discovery.error"])

    # --- transplants

    def _ask(self, campaign: Campaign, margin: float) -> bool:
        """Ask the router; False: there are too few queries left."""
        probes = int(min(LOOKS[-1], self._queries))
        if probes < (LOOKS[-1] if campaign.undecided else ENOUGH):
            return False
        self._queries -= probes
        self._tests += 1
        campaign.asked = stable_id("transplant", campaign.window, campaign.uses[0].finding_id, str(self._tests))
        wanted = Transplant(
            test_id=campaign.asked, text=campaign.text, place=campaign.place, direction=campaign.direction,
            margin=margin, needed=self._needed(), probes=probes,
            scale=campaign.scale,
        )  # fmt: skip
        self.counters["transplants.wanted"] += 1
        finding = self._finding("transplant", campaign, campaign.uses[-1], campaign.asked)
        finding.transplant = wanted
        # Its own partition: the answer comes back to where the window's campaign is.
        self._out.append(Output(FINDINGS.name, campaign.window.encode(), encode(finding), (), self._partition))
        return True

    def _on_transplant(self, finding: Finding, answer: Transplant) -> None:
        campaign = self._campaigns.get(finding.window)
        if not answer.is_answer:  # our own question, on its way to who answers it
            return
        if campaign is None or campaign.asked != answer.test_id:
            self.counters["transplants.late"] += 1
            return
        campaign.asked = ""
        self._queries = min(QUERIES, self._queries + answer.probes - len(answer.lifts))
        self.counters["transplants.queries"] += len(answer.lifts)
        if answer.failed:
            self.counters["transplants.failed"] += 1
        elif log_wealth(answer.lifts, answer.margin) >= answer.needed:
            self._name(campaign, "transplant", answer.lifts)
        elif is_hopeless(answer.lifts, answer.margin):
            self.counters["transplants.no_lift"] += 1
            campaign.denied = True
            campaign.begin_anew(fails=HOPELESS_FAILS)
        elif len(answer.lifts) < LOOKS[-1]:  # tried again with this text, once there are queries for all probes
            self.counters["transplants.undecided"] += 1
            campaign.undecided = True
        else:
            self.counters["transplants.no_lift"] += 1
            campaign.denied = True
            campaign.begin_anew(fails=0)
        self._keep(campaign)

    # --- naming

    def _name(self, campaign: Campaign, stage: str, lifts: list[float]) -> None:
        campaign.state = "usual" if campaign.usual else "named"
        campaign.stage, campaign.lifts = stage, lifts
        self.counters[f"campaigns.{campaign.state}"] += 1
        for use in campaign.uses:
            self._say(campaign, use)
        if campaign.text:
            self._propose(campaign)

    def _say(self, campaign: Campaign, use: Use) -> None:
        """One finding a use: the alert counts them, and their callers."""
        kind = "usual_window" if campaign.state == "usual" else "unseen_trigger"
        finding = self._finding(kind, campaign, use, use.finding_id)
        principals = len({use.principal_hash for use in campaign.uses})
        first = campaign.uses[0].request_id
        finding.note = f"{campaign.count} uses, {principals} callers, first in {first}; {campaign.lift_text}"
        finding.request_ids = [use.request_id]
        self._out += self._detections.records(finding)

    def _propose(self, campaign: Campaign) -> None:
        """For the review queue, and nothing else: only a reviewer approves."""
        place = campaign.place
        trigger = Trigger(
            trigger_id=f"discovered-{campaign.window}-{stable_id(campaign.uses[0].finding_id)[:8]}",
            version=1,
            text=campaign.text,
            kind="lexical",
            position="prefix" if place == "head" else "suffix" if place == "tail" else "any",
            direction="down" if campaign.direction == "down" else "up",
            provenance=f"discovered by {campaign.stage}, {campaign.lift_text}"[:256],
            reason="in use since before it could be judged" if campaign.state == "usual" else "",
            updated_at=_time(self.time_ms),
        )
        self._out.append(Output(PROPOSALS.name, trigger.trigger_id.encode(), encode(trigger)))

    def _finding(self, kind: str, campaign: Campaign, use: Use, cause: str) -> Finding:
        values, tried = self._thresholds, bool(campaign.lifts)
        return Finding(
            finding_id=stable_id("finding", campaign.window, cause, kind),
            kind=kind,
            category=KINDS[kind],
            severity="info",
            time=_time(self.time_ms),
            labels={},
            detector="discovery",
            detector_version="3",
            tenant_id=use.tenant_id,
            principal_hash=use.principal_hash,
            router_name=use.router_name,
            request_id=use.request_id,
            event_time=None if use.event_ms is None else _time(use.event_ms),
            score=round(campaign.lift if tried else campaign.log_wealth, 3),
            threshold=values["discovery.lift" if tried else "discovery.proof"],
            threshold_version=values.version,
            direction=campaign.direction,
            stage=campaign.stage,
            seen=float(campaign.count),
            window=campaign.window,
            trigger_id=use.trigger_id,
        )

    # --- state

    def waiting(self) -> bool:
        """Nothing expires by time alone: what is old begins anew at its next use."""
        return False

    def holds(self) -> dict[str, int]:
        """See `Processor.holds`."""
        return {"state_keys.campaigns": len(self._campaigns)}

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """See `Processor.changes`."""
        changed = [(key.encode(), value) for key, value in self._campaigns.changes()]
        return [*changed, (MARKER_KEY, self._marker())]

    def snapshot(self) -> dict[bytes, bytes]:
        """See `Processor.snapshot`."""
        held = {key.encode(): value for key, value in self._campaigns.snapshot().items()}
        return held | {MARKER_KEY: self._marker()}

    def load(self, key: bytes, value: bytes | None) -> None:
        """See `Processor.load`."""
        if key == MARKER_KEY and value is not None:
            state = _decode_state(value)
            check_format(state.marker)
            self.offset, self.time_ms = state.marker.offset, state.marker.time_ms
            self.counters = Counter(state.marker.counters)
            self._queries, self._tests = state.queries, state.tests
        else:
            self._campaigns.load(key.decode(), value)

    def loaded(self) -> None:
        """See `Processor.loaded`."""
        self._texts = Texts()
        for window, campaign in self._campaigns.items():
            self._texts.put(window, campaign.tokens)

    def _marker(self) -> bytes:
        marker = Marker(offset=self.offset, time_ms=self.time_ms, counters=dict(sorted(self.counters.items())))
        return _encode(_State(marker, self._queries, self._tests))


def _milliseconds(time: datetime | None) -> int | None:
    return None if time is None else round(time.timestamp() * 1000)


def _time(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)
