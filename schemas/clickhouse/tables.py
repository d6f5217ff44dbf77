"""What the history writes: each table's columns, their types, and how a column is read from a record.

The migrations create the tables (order, keys, codecs, indexes, TTL); a test holds both against each other. No
column is Nullable: what a record may lack is a default and a flag `has_*`. No column holds text of prompts,
responses or judges.
"""

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from schemas.codec import Place, encode

STRING = "String"
NAME = "LowCardinality(String)"  # fewer than about 10,000 values: never of a user, a session or a request
NAMES = "Array(LowCardinality(String))"
TIME = "DateTime64(3, 'UTC')"
BOOL = "Bool"
COUNT = "UInt64"
SMALL = "UInt32"
NUMBER = "Float64"


class At(NamedTuple):
    """A place without a record."""

    partition: int
    offset: int
    timestamp: int


# A column of many records at once: a call for each cell would take most of the time that it takes to store them.
Read = Callable[[Sequence[Any], Sequence[Place]], list[Any]]


class Column(NamedTuple):
    """`read` gives its values from what the rows are about and the places of the records that it is from."""

    name: str
    type: str
    read: Read


class Table:
    """A table, and how records become rows of it."""

    def __init__(self, name: str, columns: Iterable[Column]) -> None:
        self.name = name
        self._columns = {column.name: column for column in columns}
        self.columns = tuple(self._columns)
        self.types = tuple(column.type for column in self._columns.values())

    def read(self, subjects: Sequence[Any], places: Sequence[Place]) -> list[list[Any]]:
        """The rows of `subjects`, as columns in the order of `columns`."""
        return [column.read(subjects, places) for column in self._columns.values()]

    def row(self, subject: Any, place: Place) -> tuple[Any, ...]:
        """One row, in the order of `columns`."""
        return tuple(values[0] for values in self.read([subject], [place]))

    def cell(self, column: str, subject: Any, place: Place) -> Any:
        """One column of one row.

        Raises:
            KeyError: there is no such column.
        """
        return self._columns[column].read([subject], [place])[0]


def _field(name: str, kind: str, path: str) -> Column:
    """A field as it is, by its path, as `ticket.score`."""
    get = attrgetter(path)
    return Column(name, kind, lambda subjects, _: list(map(get, subjects)))


def _plain(kind: str, *names: str, of: str = "") -> list[Column]:
    """Fields as they are; `of` is the path to the struct that has them, as `ticket.`."""
    return [_field(name, kind, of + name) for name in names]


def _millis(*names: str, of: str = "") -> list[Column]:
    """Times, as whole milliseconds: what the client writes without asking any zone."""
    return [Column(name, TIME, _as_millis(attrgetter(of + name))) for name in names]


def _maybe(kind: str, *names: str, of: str = "") -> list[Column]:
    """A flag `has_NAME` and the value, or the type's default, of fields that may be None."""
    columns = []
    for name in names:
        get = attrgetter(of + name)
        columns += [Column(f"has_{name}", BOOL, _is_given(get)), Column(name, kind, _or_default(get, kind))]
    return columns


def _as_millis(get: Callable[[Any], Any]) -> Read:
    return lambda subjects, _: [round(time.timestamp() * 1000) for time in map(get, subjects)]


def _is_given(get: Callable[[Any], Any]) -> Read:
    return lambda subjects, _: [value is not None for value in map(get, subjects)]


def _or_default(get: Callable[[Any], Any], kind: str) -> Read:
    if kind == TIME:
        return lambda subjects, _: [
            0 if value is None else round(value.timestamp() * 1000) for value in map(get, subjects)
        ]
    default = 0.0 if kind == NUMBER else 0
    return lambda subjects, _: [default if value is None else value for value in map(get, subjects)]


def _made(name: str, kind: str, get: Callable[[Any], Any]) -> Column:
    return Column(name, kind, lambda subjects, _: list(map(get, subjects)))


# The same key stands on the same partition: of two rows with the same identity the later offset is kept.
_PLACE = [
    Column("log_partition", SMALL, lambda _, places: [place.partition for place in places]),
    Column("log_offset", COUNT, lambda _, places: [place.offset for place in places]),
]

_EVENT = [
    *_plain(STRING, "event_id"),
    *_millis("event_time"),
    Column("time", TIME, lambda _, places: [place.timestamp for place in places]),
    *_plain(STRING, "request_id"),
    *_plain(NAME, "tenant_id"),
    *_plain(STRING, "principal_hash"),
    *_plain("UInt16", "schema_version"),
    *_plain(STRING, "trace_id", "end_user_hash"),
    *_plain(NAME, "gateway_name", "gateway_instance", "gateway_version", "gateway_plugins_hash"),
    *_PLACE,
]

REQUESTS = Table("requests", [
    *_EVENT,
    *_plain(NAME, "operation_name", "request_model"),
    *_plain(STRING, "conversation_id"),
    *_plain(COUNT, "turn_index"),
    *_plain(BOOL, "request_stream"),
    *_plain(COUNT, "request_max_tokens"),
    *_plain(STRING, "prompt_hash"),
    *_plain(COUNT, "prompt_chars", "prompt_tokens_est", "n_messages"),
    *_plain(STRING, "system_prompt_hash", "source_ip_prefix", "user_agent"),
])  # fmt: skip

ROUTES = Table("routes", [
    *_EVENT,
    *_plain(NAME, "selected_model", "router_name", "router_type", "router_version"),
    *_plain(NAME, "provider_name", "provider_region", "provider_retention"),
    *_maybe(NUMBER, "difficulty_score"),
    *_plain(NAME, "score_kind"),
    *_plain("Int8", "score_direction"),
    *_maybe(NUMBER, "router_threshold"),
    *_plain(NAME, "threshold_source"),
    *_plain("Map(LowCardinality(String), Float64)", "tier_boundaries"),
    *_plain(NAME, "tier"),
    *_maybe("UInt16", "tier_rank"),
    *_plain(NAME, "category", "decision_cause"),
    *_plain(NAMES, "signals"),
    *_plain(BOOL, "escalated", "cache_hit"),
    *_plain("UInt16", "attempt"),
    *_plain(NAME, "fallback_from"),
    *_plain(NAMES, "fallback_chain"),
    *_plain(NAME, "classifier_model"),
    *_maybe(NUMBER, "classifier_confidence"),
    *_plain(NUMBER, "classifier_cost_usd"),
    *_maybe(NUMBER, "cost_estimate_usd"),
    *_plain(NAME, "baseline_model"),
    *_maybe(NUMBER, "baseline_cost_usd"),
    _made("counterfactual_ablations", NAMES, lambda route: [c.ablation for c in route.counterfactual_scores]),
    _made("counterfactual_tokens", "Array(UInt64)", lambda route: [c.tokens for c in route.counterfactual_scores]),
    _made("counterfactual_scores", "Array(Float64)",
          lambda route: [c.difficulty_score for c in route.counterfactual_scores]),
])  # fmt: skip

OUTCOMES = Table("outcomes", [
    *_EVENT,
    *_plain(STRING, "response_id"),
    *_plain(NAME, "response_model"),
    *_plain(NAMES, "response_finish_reasons"),
    *_plain(NAME, "response_status", "response_path", "error_type"),
    *_plain(COUNT, "usage_input_tokens", "usage_output_tokens", "usage_cache_read_input_tokens",
            "usage_reasoning_output_tokens"),
    *_maybe(NUMBER, "cost_usd"),
    *_plain(NAME, "cost_source"),
    *_plain(NUMBER, "duration_s", "time_to_first_chunk_s"),
    *_plain(NAME, "evaluation_name"),
    *_maybe(NUMBER, "evaluation_score_value"),
    *_plain(NAME, "evaluation_score_label", "guardrail_verdict", "guardrail_action"),
    *_plain(NAMES, "risk_category"),
    *_plain(NAME, "fit_verdict", "outcome_source"),
    *_plain(STRING, "idempotency_key", "response_hash_provider", "response_hash_client",
            "tool_calls_hash_provider", "tool_calls_hash_client"),
    *_plain("Array(Array(UInt64))", "expert_load"),
    *_plain("Array(String)", "canary_hits"),
])  # fmt: skip

VERDICTS = Table("verdicts", [
    *_plain(STRING, "verdict_id", "request_id", "event_id"),
    *_millis("event_time", "time"),
    *_plain(NAME, "tenant_id"),
    *_plain(STRING, "principal_hash"),
    *_plain(NAME, "decision", "unjudged_reason"),
    _made("flagged_by", NAMES, lambda verdict: [r.detector for r in verdict.reasons if r.flagged]),
    *_plain("Map(LowCardinality(String), Float64)", "scores"),
    *_plain(NAMES, "unable"),
    *_plain(BOOL, "route_missing"),
    *_plain(NAME, "router_name", "router_version", "selected_model", "tier"),
    *_maybe("UInt16", "tier_rank"),
    *_maybe(NUMBER, "difficulty_score", "cost_estimate_usd"),
    *_plain(BOOL, "cache_hit"),
    *_plain(NAME, "fallback_from"),
    *_plain(COUNT, "prompt_chars", "likeness"),
    *_plain(STRING, "prompt_hash"),
    *_plain(SMALL, "catalogue_version", "thresholds_version"),
    _field("request_partition", SMALL, "partition"),
    _field("request_offset", COUNT, "offset"),
    *_PLACE,
])  # fmt: skip


class NumberedReason(NamedTuple):
    """A reason with the verdict that it stands in, and its place there."""

    verdict: Any
    number: int
    reason: Any


REASONS = Table("reasons", [
    *_plain(STRING, "verdict_id", of="verdict."),
    _field("number", "UInt16", "number"),
    *_plain(STRING, "request_id", of="verdict."),
    *_millis("event_time", "time", of="verdict."),
    *_plain(NAME, "tenant_id", of="verdict."),
    *_plain(STRING, "principal_hash", of="verdict."),
    *_plain(NAME, "router_name", "selected_model", "tier", of="verdict."),
    *_plain(BOOL, "flagged", of="reason."),
    *_plain(NAME, "detector", "detector_version", "kind", "stage", of="reason."),
    *_plain(NUMBER, "score", "threshold", of="reason."),
    *_plain(SMALL, "threshold_version", of="reason."),
    *_plain(NAME, "direction", of="reason."),
    *_maybe(NUMBER, "expected", "seen", of="reason."),
    _made("has_span", BOOL, lambda row: row.reason.span is not None),
    _made("span_start", "Int32", lambda row: row.reason.span[0] if row.reason.span else 0),
    _made("span_end", "Int32", lambda row: row.reason.span[1] if row.reason.span else 0),
    *_plain(STRING, "window", "trigger_id", of="reason."),
    *_plain(SMALL, "trigger_version", of="reason."),
    *_maybe(NUMBER, "share", of="reason."),
    *_plain(STRING, "note", of="reason."),
    *_PLACE,
])  # fmt: skip

FINDINGS = Table("findings", [
    *_plain(STRING, "finding_id"),
    *_plain(NAME, "kind", "category", "severity"),
    *_millis("time"),
    *_plain("Map(LowCardinality(String), String)", "labels"),
    *_plain(NAME, "detector", "detector_version", "tenant_id"),
    *_plain(STRING, "principal_hash"),
    *_plain(NAME, "router_name"),
    *_plain(STRING, "request_id"),
    *_maybe(TIME, "event_time"),
    *_plain(NUMBER, "score", "threshold"),
    *_plain(SMALL, "threshold_version"),
    *_plain(NAME, "direction", "stage"),
    *_maybe(NUMBER, "expected", "seen"),
    *_plain(STRING, "window", "trigger_id"),
    *_plain(SMALL, "trigger_version", "catalogue_version"),
    *_maybe(NUMBER, "extra_cost_usd"),
    *_plain("Array(String)", "request_ids"),
    *_plain(STRING, "note", "campaign"),
    *_PLACE,
])  # fmt: skip

ALERTS = Table("alerts", [
    *_plain(STRING, "alert_id", "fingerprint"),
    *_plain(NAME, "alertname", "category", "severity", "status"),
    *_plain("Map(LowCardinality(String), String)", "labels"),
    *_millis("starts_at", "last_seen"),
    *_maybe(TIME, "ends_at"),
    *_millis("time"),
    *_plain(COUNT, "count", "sequence", "principals", "tenants"),
    *_plain(NAME, "detector", "detector_version", "tenant_id"),
    *_plain(STRING, "principal_hash"),
    *_plain(NAME, "router_name", "direction"),
    *_plain(NUMBER, "score", "threshold"),
    *_plain(SMALL, "threshold_version", "catalogue_version"),
    *_plain(STRING, "trigger_id", "window"),
    *_maybe(NUMBER, "est_cost_usd"),
    *_plain(STRING, "first_request_id"),
    *_maybe(TIME, "first_event_time"),
    *_plain("Array(String)", "request_ids", "finding_ids"),
    *_plain(NAMES, "mitre_atlas", "owasp"),
    *_plain(STRING, "runbook_url", "summary"),
    *_plain("Map(LowCardinality(String), Array(String))", "attributes"),
    *_plain(BOOL, "campaign"),
    *_plain(STRING, "suppressed_by", "inhibited_by"),
    *_PLACE,
])  # fmt: skip

# Neither the value nor the headers of the original: they may hold a prompt. The topic keeps them for redrive.


def _letter_times(letters: Sequence[Any], places: Sequence[Place]) -> list[int]:
    """When the broker took the record, or its letter: of what no client can decode the former is not known.

    It is given as 1970, where the table's TTL would drop the row at once.
    """
    return [
        round(letter.time.timestamp() * 1000) or place.timestamp
        for letter, place in zip(letters, places, strict=True)
    ]


DEAD_LETTERS = Table("dead_letters", [
    *_plain(STRING, "letter_id"),
    *_plain(NAME, "topic"),
    _field("original_partition", SMALL, "partition"),
    _field("original_offset", COUNT, "offset"),
    Column("time", TIME, _letter_times),
    *_plain(NAME, "stage", "reason"),
    *_plain(STRING, "field", "detail"),
    *_plain(COUNT, "size"),
    *_PLACE,
])  # fmt: skip

THRESHOLDS = Table("thresholds", [
    *_plain(STRING, "update_id"),
    *_plain(NAME, "detector", "router_name", "route", "category", "tenant_id", of="scope."),
    *_plain(NAME, "parameter"),
    *_maybe(NUMBER, "old_value"),
    *_plain(NUMBER, "new_value"),
    *_plain(NAME, "direction"),
    *_plain(SMALL, "version"),
    *_plain(NAME, "mode", "cause"),
    *_millis("time"),
    *_plain(COUNT, "n_trusted", "n_principals", "n_tenants"),
    *_maybe(NUMBER, "risk_ucb", "e_value", "alpha", "delta", "epsilon", "cost_usd_per_day"),
    *_plain(STRING, "actor", "approver", "reason"),
    *_maybe(TIME, "expires_at"),
    *_plain(STRING, "prev_hash", "hash"),
    *_PLACE,
])  # fmt: skip

# As it was signed: what `pointsman threshold verify` reads.
THRESHOLD_LINKS = Table("threshold_links", [
    *_plain(SMALL, "version"),
    *_plain(STRING, "update_id"),
    *_millis("time"),
    _made("link", STRING, lambda update: encode(update).decode()),
    *_PLACE,
])  # fmt: skip

# Not the judge's reason: it may quote a prompt.
AUDITS = Table("audits", [
    *_plain(STRING, "label_id"),
    *_plain(STRING, "ticket_id", "request_id", of="ticket."),
    *_plain(NAME, "tenant_id", of="ticket."),
    *_plain(STRING, "principal_hash", of="ticket."),
    *_plain(NAME, "detector", "parameter", "router_name", "route", "category", "stratum", of="ticket."),
    *_plain(NUMBER, "score", "threshold", of="ticket."),
    *_plain(SMALL, "threshold_version", of="ticket."),
    *_plain(NUMBER, "weight", of="ticket."),
    *_millis("issued_at", of="ticket."),
    *_plain(NAME, "judge", "label"),
    *_maybe(NUMBER, "confidence"),
    *_millis("labelled_at"),
    *_PLACE,
])  # fmt: skip

ALL = (REQUESTS, ROUTES, OUTCOMES, VERDICTS, REASONS, FINDINGS, ALERTS, DEAD_LETTERS, THRESHOLDS, THRESHOLD_LINKS,
       AUDITS)  # fmt: skip


class Judged(NamedTuple):
    """What a replay gave: a verdict, a finding or an alert, with its run; for alerts, when it first fired."""

    run_id: str
    record: Any
    fired_at: Any = None


_RUN = _plain(STRING, "run_id")

REPLAY_VERDICTS = Table("replay_verdicts", [
    *_RUN,
    *_plain(STRING, "verdict_id", "request_id", of="record."),
    *_millis("event_time", "time", of="record."),
    *_plain(NAME, "tenant_id", of="record."),
    *_plain(STRING, "principal_hash", of="record."),
    *_plain(NAME, "decision", "unjudged_reason", of="record."),
    _made("flagged_by", NAMES, lambda judged: [r.detector for r in judged.record.reasons if r.flagged]),
    *_plain("Map(LowCardinality(String), Float64)", "scores", of="record."),
    *_plain(NAME, "router_name", "selected_model", "tier", of="record."),
])  # fmt: skip

REPLAY_FINDINGS = Table("replay_findings", [
    *_RUN,
    *_plain(STRING, "finding_id", of="record."),
    *_plain(NAME, "kind", "severity", of="record."),
    *_millis("time", of="record."),
    *_plain("Map(LowCardinality(String), String)", "labels", of="record."),
    *_plain(NAME, "detector", "detector_version", "tenant_id", of="record."),
    *_plain(STRING, "principal_hash", of="record."),
    *_plain(NAME, "router_name", of="record."),
    *_plain(STRING, "request_id", of="record."),
    *_plain(NUMBER, "score", "threshold", of="record."),
    *_plain(NAME, "stage", of="record."),
    *_plain(STRING, "window", "trigger_id", "note", of="record."),
])  # fmt: skip

REPLAY_ALERTS = Table("replay_alerts", [
    *_RUN,
    *_millis("fired_at"),
    *_plain(STRING, "alert_id", "fingerprint", of="record."),
    *_plain(NAME, "alertname", "category", "severity", "status", of="record."),
    *_plain("Map(LowCardinality(String), String)", "labels", of="record."),
    *_millis("starts_at", "last_seen", of="record."),
    *_maybe(TIME, "ends_at", of="record."),
    *_plain(COUNT, "count", "principals", "tenants", of="record."),
    *_plain(NAME, "tenant_id", of="record."),
    *_plain(STRING, "principal_hash", of="record."),
    *_plain(NUMBER, "score", "threshold", of="record."),
    *_plain(STRING, "first_request_id", of="record."),
    *_plain("Array(String)", "request_ids", of="record."),
])  # fmt: skip

REPLAY_RUNS = Table("replay_runs", [
    *_RUN,
    *_millis("made_at"),
    *_plain(NAME, "source"),
    *_millis("warm_from", "begins", "ends"),
    *_plain(STRING, "pins"),
    *_plain(COUNT, "events", "left_out", "verdicts", "flagged", "findings", "alerts"),
])  # fmt: skip

REPLAYS = (REPLAY_RUNS, REPLAY_VERDICTS, REPLAY_FINDINGS, REPLAY_ALERTS)

# Where a row's time is not in `time`: what it is about had begun by then. An erasure covers rows by it.
BEGUN = {"alerts": "starts_at", "audits": "issued_at", "replay_alerts": "starts_at"}
