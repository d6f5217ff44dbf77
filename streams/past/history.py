"""Events of a window as the history has them: without text, so what needs text is taken from what was said then.

What is judged again in full: all that works on routes, tiers, costs, outcomes and guardrail verdicts (`spend`,
`coverage`, ...). What is only *weighed* again, by its recorded score against the run's thresholds: what read the
prompt (`RECORDED`). A score that lies far below its threshold was recorded without its reason, so lowering a
threshold finds the request, but not the trigger or window that it was about; a changed catalogue finds nothing.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import msgspec

from detectors.audited import AUDITED
from detectors.budget import Grant
from detectors.contract import Answer, Case, PromptFacts, StreamDetector
from detectors.custody.rules import Rules
from detectors.panel import PromptPanel
from detectors.processor import Record
from detectors.registry import stream_detectors
from detectors.text import PromptBatch
from detectors.thresholds import Thresholds
from schemas.codec import encode
from schemas.erasures import Erasures
from schemas.events import AnyEvent, CounterfactualScore, Outcome, Request, Route
from schemas.topics import EVENTS
from schemas.verdicts import Reason
from streams.past.run import Run, Window, at, ms
from streams.replay import FileRecord
from streams.store import Store

PROMPT = ("triggers", "novelty")
STREAM = ("discovery", "steering", "difficulty", "probing")
RECORDED = (*PROMPT, *STREAM)

# Which threshold a recorded reason was held against, by detector and stage; and the kind and stage of a score that
# has none, being far below.
_THRESHOLD_OF = {
    ("triggers", "lexical"): "triggers.bits",
    ("triggers", "fragment"): "triggers.bits",
    ("triggers", "static"): "triggers.cosine",
    ("triggers", "transformer"): "triggers.transformer_cosine",
    ("novelty", "tagger"): "novelty.flag",
    ("probing", "sketch"): "probing.run",
    ("steering", "residual"): "steering.evidence",
    ("steering", "pairs"): "steering.evidence",
    ("difficulty", "spoofed_difficulty"): "difficulty.spoofed",
    ("difficulty", "tier_contradiction"): "difficulty.contradiction_steps",
    ("difficulty", "tier_downgrade"): "difficulty.contradiction_steps",
    ("difficulty", "caller_threshold"): "difficulty.caller_share",
}
_FAR_BELOW = {
    "triggers": ("known_trigger", "lexical"),
    "novelty": ("novel_text", "tagger"),
    "steering": ("steering", "residual"),
    "difficulty": ("spoofed_difficulty", ""),
}
_OWN_SCALE = frozenset({"triggers.bits"})  # grows with the catalogue: moved by as much as the setting is

_LEAST_ROWS, _MOST_ROWS = 10_000, 60_000
_FIRST_SLICE_MS, _LONGEST_SLICE_MS = 60_000, 86_400_000
_CLOCKS_OFF = timedelta(days=1)  # the codec holds event times this near to the broker's


class Said(NamedTuple):
    """What was said of one request when it was judged."""

    scores: Mapping[str, float]
    unable: Sequence[str]
    reasons: Sequence[Reason]
    catalogue_version: int
    likeness: int


class Memory:
    """What was said of the requests at hand, by principal and event id: of two slices, as a route may be late."""

    def __init__(self) -> None:
        self._now: dict[tuple[str, str], Said] = {}
        self._before: dict[tuple[str, str], Said] = {}

    def turn(self, said: dict[tuple[str, str], Said]) -> None:
        """The next slice."""
        self._now, self._before = said, self._now

    def of(self, request: Request) -> Said | None:
        """None: no verdict is recorded."""
        key = request.principal_hash, request.event_id
        return self._now.get(key) or self._before.get(key)


class _Recorded:
    """The name of a prompt detector whose answers are recorded; it reads no prompt."""

    kinds = ()
    version = "recorded"

    def __init__(self, name: str) -> None:
        self.name = name

    def score_batch(self, prompts: PromptBatch) -> list[Answer]:
        """None for each."""
        return [None for _ in prompts.heads]


class RecordedPanel(PromptPanel):
    """Gives the prompt detectors' recorded answers, weighed by the thresholds of this run."""

    def __init__(self, thresholds: Thresholds, base: Thresholds, memory: Memory) -> None:
        """`base`: what was in force."""
        self.thresholds = thresholds
        self.detectors = [_Recorded(name) for name in PROMPT]
        self._base = base
        self._memory = memory

    def facts(self, requests: Sequence[Request], grant: Grant | None = None) -> list[PromptFacts]:
        """See `PromptPanel`; a request without a recorded verdict cannot be judged."""
        return [self._fact(request.tenant_id, self._memory.of(request)) for request in requests]

    def _fact(self, tenant_id: str, said: Said | None) -> PromptFacts:
        if said is None:
            return PromptFacts(unable=list(PROMPT), thresholds_version=self.thresholds.version)
        answers = {name: weigh(said, name, tenant_id, self.thresholds, self._base) for name in PROMPT}
        return PromptFacts(
            scores={name: said.scores[name] for name in PROMPT if name in said.scores},
            reasons=[answer for answer in answers.values() if isinstance(answer, Reason)],
            unable=[name for name in PROMPT if name in said.unable],
            catalogue_version=said.catalogue_version,
            likeness=said.likeness,
            thresholds_version=self.thresholds.version,
        )


class RecordedDetector:
    """A StreamDetector that gives its recorded answers at verdicts, weighed again; it has no state to learn."""

    kinds = ()

    def __init__(self, name: str, thresholds: Thresholds, base: Thresholds, memory: Memory) -> None:
        self.name = name
        self.version = "recorded"
        self._thresholds = thresholds
        self._base = base
        self._memory = memory
        self._given: tuple[str, str] | None = None

    def score(self, case: Case) -> Answer:
        """See `StreamDetector.score`."""
        if case.outcome is not None or (case.request.principal_hash, case.request.event_id) == self._given:
            return None
        said = self._memory.of(case.request)
        tenant_id = case.request.tenant_id
        return weigh(said, self.name, tenant_id, self._thresholds, self._base) if said else None

    def learn(self, case: Case, flagged: bool) -> None:
        """Remember whom it answered last: a further route of the same request is no further verdict."""
        if case.outcome is None:
            self._given = case.request.principal_hash, case.request.event_id

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """Nothing."""
        return iter(())

    def snapshot(self) -> dict[str, bytes]:
        """Nothing."""
        return {}

    def load(self, key: str, value: bytes | None) -> None:
        """Nothing."""


def recorded_detectors(
    thresholds: Thresholds, rules: Rules, base: Thresholds, memory: Memory
) -> list[StreamDetector]:
    """The stream detectors in their order, those that need text replaced by what they said."""
    return [
        RecordedDetector(detector.name, thresholds, base, memory) if detector.name in STREAM else detector
        for detector in stream_detectors(thresholds, rules)
    ]


def weigh(said: Said, name: str, tenant_id: str, thresholds: Thresholds, base: Thresholds) -> Answer:
    """A detector's recorded answer against the tenant's thresholds of this run; None: it could not judge."""
    score = said.scores.get(name)
    if score is None:
        return None
    reason = next((reason for reason in said.reasons if reason.detector == name), None)
    if reason is None:
        return _from_far_below(name, score, tenant_id, thresholds, base)
    parameter = _THRESHOLD_OF.get((name, reason.stage or reason.kind)) or _THRESHOLD_OF.get((name, reason.kind))
    if parameter is None:
        return reason
    audited = AUDITED.get(name)
    ruled = tenant_id if audited and audited.covers(reason) else ""  # as `for_tenant`: the rest is the fleet's
    limit = thresholds.of(parameter, ruled)
    if parameter in _OWN_SCALE:
        limit += reason.threshold - base.of(parameter, ruled)
    if limit == reason.threshold:
        return reason
    return msgspec.structs.replace(
        reason, threshold=limit, threshold_version=thresholds.version, flagged=reason.score >= limit
    )


def _from_far_below(name: str, score: float, tenant_id: str, thresholds: Thresholds, base: Thresholds) -> Answer:
    if name not in _FAR_BELOW:
        return score
    kind, stage = _FAR_BELOW[name]
    parameter = _THRESHOLD_OF[name, stage or kind]
    limit = thresholds.of(parameter, tenant_id)
    # What flags grows with the catalogue: only a threshold that is lower than the one in force finds something.
    shifted = parameter in _OWN_SCALE and limit >= base.of(parameter, tenant_id)
    if shifted or score < limit:
        return score
    return Reason(
        detector=name, detector_version="recorded", score=score, threshold=limit,
        threshold_version=thresholds.version, flagged=True, kind=kind, stage=stage,
        note="by its recorded score; what it was about was not recorded",
    )  # fmt: skip


async def events(
    store: Store, window: Window, erasures: Erasures, run: Run, memory: Memory
) -> AsyncIterator[tuple[int, Sequence[Record]]]:
    """Records rebuilt from rows, by slices of stream time, in each partition's log order."""
    begin, length = window.warm_from, _FIRST_SLICE_MS
    numbers: dict[int, int] = {}
    while begin < window.ends:
        end = min(begin + length, window.ends)
        earliest, latest = at(begin) - _CLOCKS_OFF, at(end) + _CLOCKS_OFF
        span = {"begin": at(begin), "end": at(end), "earliest": earliest, "latest": latest}
        memory.turn(await _said(store, span))
        rows = [row for kind in (Request, Route, Outcome) for row in await _rows(store, kind, span)]
        rows.sort(key=lambda row: row[:2])
        by_partition: dict[int, list[Record]] = {}
        for (partition, _), time_ms, event in rows:
            if erasures.cover(event.tenant_id, event.principal_hash, at(time_ms)):
                run.left_out += 1
                continue
            # Numbered anew: an offset of the log may have gone missing, and may not come twice.
            number = numbers[partition] = numbers.get(partition, -1) + 1
            record = FileRecord(
                EVENTS.name, number, time_ms, encode(event), event.principal_hash.encode(), (), partition
            )
            by_partition.setdefault(partition, []).append(record)
        for partition in sorted(by_partition):
            yield partition, by_partition[partition]
        begin = end
        if len(rows) < _LEAST_ROWS:
            length = min(2 * length, _LONGEST_SLICE_MS)
        elif len(rows) > _MOST_ROWS:
            length = max(length // 2, 1_000)


_TABLES: dict[type[AnyEvent], str] = {Request: "requests", Route: "routes", Outcome: "outcomes"}
_SPAN = (
    "time >= {begin:DateTime64(3, 'UTC')} AND time < {end:DateTime64(3, 'UTC')}"
    " AND event_time >= {earliest:DateTime64(3, 'UTC')} AND event_time < {latest:DateTime64(3, 'UTC')}"
)


async def _rows(
    store: Store, kind: type[AnyEvent], span: Mapping[str, Any]
) -> Iterable[tuple[tuple[int, int], int, AnyEvent]]:
    answer = await store.query(f"SELECT * FROM {_TABLES[kind]} FINAL WHERE {_SPAN}", span)  # noqa: S608  ours
    return [
        ((row["log_partition"], row["log_offset"]), ms(row["time"]), _event(kind, row)) for row in answer.records()
    ]


def _event(kind: type[AnyEvent], row: Mapping[str, Any]) -> AnyEvent:
    """The event that made the row, but for its text."""
    fields = {
        field.name: row[field.name]
        for field in msgspec.structs.fields(kind)
        if field.name in row and row.get(f"has_{field.name}", True)
    }
    if kind is Route:
        told = zip(
            row["counterfactual_ablations"], row["counterfactual_tokens"], row["counterfactual_scores"], strict=True
        )
        fields["counterfactual_scores"] = [
            CounterfactualScore(ablation=ablation, tokens=tokens, difficulty_score=score)
            for ablation, tokens, score in told
        ]
    return kind(**fields)


async def _said(store: Store, span: Mapping[str, Any]) -> dict[tuple[str, str], Said]:
    of_slice = f"event_id IN (SELECT event_id FROM requests WHERE {_SPAN})"  # noqa: S608  ours
    near = "event_time >= {earliest:DateTime64(3, 'UTC')} AND event_time < {latest:DateTime64(3, 'UTC')}"
    columns = "verdict_id, principal_hash, event_id, scores, unable, catalogue_version, likeness"
    sql = f"SELECT {columns} FROM verdicts FINAL WHERE {near} AND {of_slice}"  # noqa: S608  ours
    verdicts = await store.query(sql, span)
    reasons: dict[str, list[Reason]] = {}
    found = await store.query(
        f"SELECT * FROM reasons FINAL WHERE {near} AND verdict_id IN"  # noqa: S608
        f" (SELECT verdict_id FROM verdicts WHERE {near} AND {of_slice}) ORDER BY verdict_id, number",
        span,
    )
    for row in found.records():
        reasons.setdefault(row["verdict_id"], []).append(_reason(row))
    return {(row["principal_hash"], row["event_id"]): _as_said(row, reasons) for row in verdicts.records()}


def _as_said(row: Mapping[str, Any], reasons: Mapping[str, Sequence[Reason]]) -> Said:
    of_it = reasons.get(row["verdict_id"], ())
    return Said(row["scores"], row["unable"], of_it, row["catalogue_version"], row["likeness"])


def _reason(row: Mapping[str, Any]) -> Reason:
    fields = {
        field.name: row[field.name]
        for field in msgspec.structs.fields(Reason)
        if field.name in row and row.get(f"has_{field.name}", True)
    }
    if row["has_span"]:
        fields["span"] = row["span_start"], row["span_end"]
    return Reason(**fields)
