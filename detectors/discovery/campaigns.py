"""Unseen triggers, second level: candidates of all partitions are added up, told from content, and tried.

    (candidate) ──► gathering ── contexts diverse, evidence ──► tried ── moves the probes ──► named
                        ▲                                         │
                        └───────── it does not: twice the bar ────┘

What tells a trigger from content that happens to lift is first that one text comes back, and not now this and now
that around the same few words; then its contexts: they have nothing to do with each other. Then a transplant
(transplant.py): wanted and answered through the log, so that the state stays a function of it. Without a router to
ask, or without the window's text, the residuals themselves are tested, which is weaker: content that lifts in all
its contexts passes.

A text may go by several windows: each detect lane cuts and names them by what it saw first, and a trigger mutates.
So a use of a window that is like a named one is a use of that.
"""

import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from detectors.detections import Detections
from detectors.discovery.likeness import ALIKE, alike
from detectors.discovery.transplant import LOOKS, is_hopeless, log_wealth
from detectors.keyed import Keyed
from detectors.kinds import KINDS
from detectors.processor import Output, Record
from detectors.thresholds import Thresholds
from schemas.checkpoints import Marker, check_format
from schemas.codec import InvalidRecord, decode, encode, erasure_in, stable_id
from schemas.topics import FINDINGS, PROPOSALS
from schemas.triggers import Trigger
from schemas.verdicts import Direction, Finding, Place, Transplant, WindowUse

STATE = b"campaigns/"  # prefix of its state keys, none of which is the alerting's
MARKER_KEY = STATE + b"marker"
CAPACITY = 16_384  # windows, at about 2 kB
FORGET_MS = 86_400_000  # without a use; with it goes the window's text
MOST_USES = 48  # remembered of a window
MOST_CONTEXTS = 12
STALE_USES = 60  # without enough contexts: it is content
OF_ONE = 4  # contexts more where all uses are one tenant's, or most one caller's: a template looks like that
LEAST_REST = 6  # hashes that a context needs
MOST_SHARED = 0.12  # Jaccard: from here on it is much the same context again
AT_ONE_PLACE = 0.75  # share of the uses: content is now here, now there
MOST_FAILS = 4  # each doubles the evidence that a window needs
HOPELESS_FAILS = 2  # of a transplant that moved nothing
QUERIES = 200.0  # that may be saved up
FEW_QUERIES = 32.0  # left, below which windows need up to three times the evidence
ENOUGH = 20  # queries, to find what is there
LEAST_TESTS = 100
_GAUSS = (0.5, 1.0)  # rates of the wealth on residuals
_FALLBACK_CONTEXTS = 12
_FALLBACK_TENANTS = 3
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Use(msgspec.Struct, array_like=True, gc=False):
    """One use of a window."""

    finding_id: str
    request_id: str
    tenant_id: str
    principal_hash: str
    router_name: str
    event_ms: int | None
    trigger_id: str = ""  # of the catalogue's, where it has a fragment of one


class Campaign(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """A window and what became of it."""

    window: str
    direction: Direction
    last_ms: int
    uses: list[Use] = []  # the first MOST_USES
    count: int = 0
    contexts: list[list[int]] = []
    alike: float = 0.0  # sum of the cosines between contexts
    evidence: float = 0.0
    usual: bool = False  # at its last use: it had long been in use
    places: dict[str, int] = {}
    scale: float = 0.0
    tokens: list[int] = []  # of the text that comes back (WindowUse.tokens)
    votes: int = 0  # uses of it beyond those of other texts
    text: str = ""
    parts: int = 0  # that the text has
    wealth: list[float] = []  # logs, of the test on residuals
    asked: str = ""  # the transplant that it waits for
    fails: int = 0
    state: str = ""  # "", "named" or "usual"
    lifts: list[float] = []
    stage: str = ""


class _State(msgspec.Struct, array_like=True):
    marker: Marker
    queries: float
    tests: int


_encode = msgspec.msgpack.Encoder().encode
_decode_campaign = msgspec.msgpack.Decoder(Campaign).decode
_decode_state = msgspec.msgpack.Decoder(_State).decode


class Campaigns:
    """A Processor (detectors/processor.py) over one partition of the findings topic, beside the alerting."""

    def __init__(
        self, detections: Detections, thresholds: Thresholds, transplants: bool, partition: int = 0,
        capacity: int = CAPACITY,
    ) -> None:  # fmt: skip
        """`transplants`: somebody answers them."""
        self.offset = 0
        self.time_ms = 0
        self.counters: Counter[str] = Counter()
        self._detections = detections
        self._thresholds = thresholds
        self._transplants = transplants
        self._partition = partition
        self._campaigns = Keyed(f"{STATE.decode()}w/", capacity, _encode, _decode_campaign)
        self._named: dict[str, list[int]] = {}  # the tokens of those that are named, by window
        self._queries = 0.0
        self._tests = 0
        self._out: list[Output] = []

    # --- the log, in order

    def apply(self, records: Sequence[Record]) -> list[Output]:
        """Take findings; what is none of ours, or cannot be read, is the alerting's to report."""
        for record in records:
            if record.offset < self.offset:
                continue
            self.offset = record.offset + 1
            self.time_ms = max(self.time_ms, record.timestamp)
            if record.value and record.headers and self._forget(record):
                continue
            if record.value and (b'"use":' in record.value or b'"transplant":' in record.value):
                try:
                    finding = decode(Finding, record)
                except InvalidRecord:
                    continue
                if finding.use is not None and finding.kind == "trigger_candidate":
                    self._on_use(finding)
                elif finding.transplant is not None and finding.kind == "transplant":
                    self._on_transplant(finding, finding.transplant)
        out, self._out = self._out, []
        return out

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
                self._named.pop(window, None)
            elif len(kept) < len(campaign.uses):
                campaign.uses = kept
                self._keep(campaign)
        return True

    def _on_use(self, finding: Finding) -> None:
        use, values = finding.use, self._thresholds
        if use is None:  # callers see to it
            raise AssertionError("a candidate has its use")
        self._queries = min(QUERIES, self._queries + values["discovery.queries"] * use.requests)
        campaign = self._campaign_of(finding.window, use.tokens)
        if campaign is None or self.time_ms - campaign.last_ms > FORGET_MS:
            campaign = Campaign(window=finding.window, direction=finding.direction, last_ms=self.time_ms)
        if any(known.finding_id == finding.finding_id for known in campaign.uses):
            return
        if not self._is_of_its_text(campaign, use):
            self._keep(campaign)
            return
        campaign.last_ms = self.time_ms
        campaign.count += 1
        known_use = Use(
            finding.finding_id, finding.request_id, finding.tenant_id, finding.principal_hash,
            finding.router_name, _milliseconds(finding.event_time), finding.trigger_id,
        )  # fmt: skip
        if len(campaign.uses) < MOST_USES:
            campaign.uses = [*campaign.uses, known_use]
        if campaign.state:
            self._say(campaign, known_use)
        else:
            self._gather(campaign, finding)
        self._keep(campaign)

    def _campaign_of(self, window: str, tokens: list[int]) -> Campaign | None:
        """The named one that the text is most like; the window's own, where it is like none."""
        likest = max(((alike(tokens, named), name) for name, named in self._named.items()), default=(0.0, ""))
        return self._campaigns.get(likest[1] if likest[0] >= ALIKE else window)

    def _keep(self, campaign: Campaign) -> None:
        if campaign.state == "named":
            self._named[campaign.window] = campaign.tokens
        for gone in self._campaigns.put(campaign.window, campaign, bool(campaign.state or campaign.asked)):
            self._named.pop(gone, None)

    def _gather(self, campaign: Campaign, finding: Finding) -> None:
        use, values = finding.use, self._thresholds
        if use is None:
            raise AssertionError("a candidate has its use")
        if campaign.direction != finding.direction:
            campaign.direction, campaign.evidence, campaign.wealth = finding.direction, 0.0, []
        campaign.evidence = max(campaign.evidence, finding.score)
        campaign.usual = use.usual
        campaign.scale = use.scale
        campaign.places[use.place] = campaign.places.get(use.place, 0) + 1
        if use.parts >= campaign.parts and (use.text or not campaign.text):
            campaign.tokens, campaign.text, campaign.parts = use.tokens, use.text, use.parts
        is_new = self._add_context(campaign, use.rest)
        if is_new:
            sign = 1.0 if campaign.direction == "up" else -1.0
            told = sign * use.residual - values["discovery.lift"]
            before = campaign.wealth or [0.0] * len(_GAUSS)
            campaign.wealth = [
                log + rate * told - rate * rate / 2 for log, rate in zip(before, _GAUSS, strict=True)
            ]
        if campaign.asked:
            return
        contexts = len(campaign.contexts)
        alike = campaign.alike / max(1, contexts * (contexts - 1) / 2)
        if campaign.count >= STALE_USES or (contexts >= MOST_CONTEXTS and alike >= values["discovery.alike"]):
            self._begin_anew(campaign)
        elif is_new and alike < values["discovery.alike"]:
            self._consider(campaign)

    def _is_of_its_text(self, campaign: Campaign, use: WindowUse) -> bool:
        """Whether the use is of the text that most are of (Boyer and Moore's vote); a new one begins anew."""
        if campaign.tokens and alike(campaign.tokens, use.tokens) < ALIKE:
            if campaign.votes or campaign.asked or campaign.state:
                campaign.votes = max(0, campaign.votes - 1)
                return False
            self._begin_anew(campaign, fails=0)
        campaign.votes += 1
        campaign.tokens = campaign.tokens or use.tokens
        return True

    def _add_context(self, campaign: Campaign, rest: list[int]) -> bool:
        """Whether this is a context that it was not seen in."""
        new = set(rest)
        if len(new) < LEAST_REST:
            return False
        shared = [(len(new & set(known)), len(known)) for known in campaign.contexts]
        if any(both >= MOST_SHARED * (size + len(new) - both) for both, size in shared):
            return False
        if len(campaign.contexts) < MOST_CONTEXTS:
            campaign.alike += sum(both / math.sqrt(size * len(new)) for both, size in shared)
            campaign.contexts = [*campaign.contexts, rest]
        return True

    def _consider(self, campaign: Campaign) -> None:
        """Try it, where its contexts and its evidence allow."""
        values = self._thresholds
        inside = self._place(campaign) == "inside"
        tenants = len({use.tenant_id for use in campaign.uses})
        needed = values["discovery.inner_contexts" if inside else "discovery.contexts"]
        if len(campaign.contexts) < needed + (OF_ONE if tenants == 1 or _is_of_one(campaign) else 0):
            return
        scarce = 1 + 2 * max(0.0, 1 - self._queries / FEW_QUERIES) if self._transplants else 1
        bar = values["discovery.proof"] * 2**campaign.fails * scarce
        if campaign.evidence < bar * (2 if campaign.usual else 1):
            return
        margin = values["discovery.inner_lift" if inside else "discovery.lift"]
        if self._transplants and campaign.text:
            self._ask(campaign, margin)
        elif len(campaign.contexts) >= _FALLBACK_CONTEXTS and tenants >= _FALLBACK_TENANTS:
            most = max(campaign.wealth)
            wealth = most + math.log(math.fsum(math.exp(log - most) for log in campaign.wealth) / len(_GAUSS))
            if wealth >= self._needed():
                self._name(campaign, "residuals", [])

    def _needed(self) -> float:
        """Log wealth that makes all false names together as rare as they may be (a union bound over the tests)."""
        return math.log(max(self._tests, LEAST_TESTS) / self._thresholds["discovery.error"])

    def _place(self, campaign: Campaign) -> Place:
        enough = AT_ONE_PLACE * sum(campaign.places.values())
        edges: tuple[Place, ...] = ("head", "tail")
        return next((edge for edge in edges if campaign.places.get(edge, 0) >= enough), "inside")

    # --- transplants

    def _ask(self, campaign: Campaign, margin: float) -> None:
        probes = int(min(LOOKS[-1], self._queries))
        if probes < ENOUGH or campaign.scale <= 0:
            self.counters["transplants.over_budget"] += 1
            return
        self._queries -= probes
        self._tests += 1
        campaign.asked = stable_id("transplant", campaign.window, campaign.uses[0].finding_id, str(campaign.fails))
        wanted = Transplant(
            test_id=campaign.asked, text=campaign.text, place=self._place(campaign), direction=campaign.direction,
            margin=margin, needed=self._needed(), probes=probes,
            scale=campaign.scale,
        )  # fmt: skip
        self.counters["transplants.wanted"] += 1
        finding = self._finding("transplant", campaign, campaign.uses[-1], campaign.asked)
        finding.transplant = wanted
        # Its own partition: the answer comes back to where the window's campaign is.
        self._out.append(Output(FINDINGS.name, campaign.window.encode(), encode(finding), (), self._partition))

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
        else:
            self.counters["transplants.no_lift"] += 1
            gave_up = is_hopeless(answer.lifts, answer.margin)
            self._begin_anew(campaign, fails=HOPELESS_FAILS if gave_up else 0)
        self._keep(campaign)

    def _begin_anew(self, campaign: Campaign, fails: int = 1) -> None:
        campaign.fails = min(MOST_FAILS, campaign.fails + fails)
        campaign.contexts, campaign.alike, campaign.evidence, campaign.count = [], 0.0, 0.0, 0
        campaign.uses, campaign.places, campaign.wealth = [], {}, []
        campaign.tokens, campaign.votes, campaign.text, campaign.parts = [], 0, "", 0

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
        finding.note = f"{campaign.count} uses, {principals} callers, first in {first}; {_lift_text(campaign)}"
        finding.request_ids = [use.request_id]
        self._out += self._detections.records(finding)

    def _propose(self, campaign: Campaign) -> None:
        """For the review queue, and nothing else: only a reviewer approves."""
        place = self._place(campaign)
        trigger = Trigger(
            trigger_id=f"discovered-{campaign.window}-{stable_id(campaign.uses[0].finding_id)[:8]}",
            version=1,
            text=campaign.text,
            kind="lexical",
            position="prefix" if place == "head" else "suffix" if place == "tail" else "any",
            direction="down" if campaign.direction == "down" else "up",
            provenance=f"discovered by {campaign.stage}, {_lift_text(campaign)}"[:256],
            reason="in use since before it could be judged" if campaign.state == "usual" else "",
            updated_at=_time(self.time_ms),
        )
        self._out.append(Output(PROPOSALS.name, trigger.trigger_id.encode(), encode(trigger)))

    def _finding(self, kind: str, campaign: Campaign, use: Use, cause: str) -> Finding:
        values = self._thresholds
        lifts = campaign.lifts
        return Finding(
            finding_id=stable_id("finding", campaign.window, cause, kind),
            kind=kind,
            category=KINDS[kind],
            severity="info",
            time=_time(self.time_ms),
            labels={},
            detector="discovery",
            detector_version="2",
            tenant_id=use.tenant_id,
            principal_hash=use.principal_hash,
            router_name=use.router_name,
            request_id=use.request_id,
            event_time=None if use.event_ms is None else _time(use.event_ms),
            score=round(math.fsum(lifts) / len(lifts), 3) if lifts else campaign.evidence,
            threshold=values["discovery.lift"] if lifts else values["discovery.proof"],
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
        self._named = {window: held.tokens for window, held in self._campaigns.items() if held.state == "named"}

    def _marker(self) -> bytes:
        marker = Marker(offset=self.offset, time_ms=self.time_ms, counters=dict(sorted(self.counters.items())))
        return _encode(_State(marker, self._queries, self._tests))


def _is_of_one(campaign: Campaign) -> bool:
    """Whether one caller has more than half of the uses."""
    callers = Counter((use.tenant_id, use.principal_hash) for use in campaign.uses)
    return 2 * max(callers.values()) > len(campaign.uses)


def _lift_text(campaign: Campaign) -> str:
    if not campaign.lifts:
        return f"evidence {campaign.evidence:.0f} sd {campaign.direction}, not tried on the router: weaker"
    low, high = interval(campaign.lifts)
    mean = math.fsum(campaign.lifts) / len(campaign.lifts)
    return f"lift {mean:.1f} sd ({low:.1f} to {high:.1f}) {campaign.direction}"


def interval(lifts: Sequence[float]) -> tuple[float, float]:
    """The mean's 95 % interval, by the normal approximation."""
    mean = math.fsum(lifts) / len(lifts)
    variance = math.fsum((lift - mean) ** 2 for lift in lifts) / max(1, len(lifts) - 1)
    half = 1.96 * math.sqrt(variance / len(lifts))
    return mean - half, mean + half


def _milliseconds(time: datetime | None) -> int | None:
    return None if time is None else round(time.timestamp() * 1000)


def _time(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)
