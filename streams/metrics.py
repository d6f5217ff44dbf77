"""Every metric, defined once: a misspelt one is an error for mypy. The page docs/metrics.md is made from here.

Labels are bounded: never a principal, a request, a tenant, or free text of an event. Count once a batch
where you can (a label lookup costs about a microsecond).
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

PREFIX = "pointsman"
REGISTRY = CollectorRegistry()  # of our own: what libraries register elsewhere is not ours to publish
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)


class Definition(NamedTuple):
    """A metric as the documentation shows it; `labels` gives each label's possible values."""

    name: str
    type: str
    help: str
    labels: dict[str, str]


DEFINITIONS: list[Definition] = []

_FAST = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
_SLOW = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_SIZES = (1, 8, 32, 128, 512, 2048, 8192, 32768)


def _counter(name: str, help_text: str, **labels: str) -> Counter:
    DEFINITIONS.append(Definition(f"{PREFIX}_{name}_total", "counter", help_text, labels))
    return Counter(name, help_text, labels, namespace=PREFIX, registry=REGISTRY)


def _gauge(name: str, help_text: str, **labels: str) -> Gauge:
    DEFINITIONS.append(Definition(f"{PREFIX}_{name}", "gauge", help_text, labels))
    return Gauge(name, help_text, labels, namespace=PREFIX, registry=REGISTRY)


def _histogram(name: str, help_text: str, buckets: Sequence[float], **labels: str) -> Histogram:
    DEFINITIONS.append(Definition(f"{PREFIX}_{name}", "histogram", help_text, labels))
    return Histogram(name, help_text, labels, namespace=PREFIX, registry=REGISTRY, buckets=buckets)


_LANE = "detect, fleet, feedback, history, notify"
_DETECTOR = "the detectors' names"
_REASON = "the reasons of `schemas/deadletters.py`"

# What comes in
EVENTS_CONSUMED = _counter(
    "events_consumed", "Records read.", lane=_LANE, topic="the topics", result="ok, dead_letter"
)
DEAD_LETTERS = _counter(
    "dead_letters", "Records sent to the dead letters.", stage="decode, judge, alert, audit, store", reason=_REASON
)
GATEWAY_EVENTS = _counter(
    "gateway_events", "Events that gateways handed over, by what became of them.",
    gateway="litellm, python, http, otlp", result="ok, invalid, failed, dropped",
)  # fmt: skip
CONSUMER_LAG = _gauge(
    "consumer_lag_messages", "High watermark less position.", lane=_LANE, topic="the topics", partition="numbers"
)
EVENT_AGE = _histogram(
    "event_age_seconds",
    "Of a batch's last record, since the broker took it, when its effects were handed over.",
    _SLOW,
    lane=_LANE,
)

# The lanes
STAGE_SECONDS = _histogram(
    "stage_duration_seconds", "Wall time of one batch in one stage.", _FAST,
    lane=_LANE, stage="judge, publish, checkpoint, load, insert",
)  # fmt: skip
BATCH_EVENTS = _histogram("batch_events", "Records in one batch.", _SIZES, lane=_LANE)
PARTITIONS = _gauge("partitions", "Partitions of this worker.", lane=_LANE, state="loading, owned")
CHECKPOINTS = _counter("checkpoints", "Checkpoints written.", lane=_LANE, result="ok, fenced, failed")
CHECKPOINT_KEYS = _counter("checkpoint_keys", "Keys written to checkpoints.", lane=_LANE)

# Judgement
VERDICTS = _counter("verdicts", "Verdicts given.", decision="clean, flagged, unjudged")
UNJUDGED = _counter(
    "unjudged", "Requests that could not be judged.", reason="no_text, route_missing, budget, error"
)
COVERAGE = _gauge("coverage_ratio", "Share of all requests of this worker's partitions that were judged.")
FINDINGS = _counter("findings", "Findings made.", detector=_DETECTOR, kind="the kinds of `detectors/kinds.py`")
DETECTOR_UNABLE = _counter("detector_unable", "Requests that a detector could not judge.", detector=_DETECTOR)
DETECTOR_ERRORS = _counter("detector_errors", "Exceptions out of a detector.", detector=_DETECTOR)
JOINS = _counter(
    "joins", "Requests, routes and outcomes brought together, or not.",
    result="met, route_missing, route_late, request_missing, outcome_late, evicted, erased",
)  # fmt: skip
STATE_KEYS = _gauge(
    "state_keys", "Keys held in state.", part="waiting, settled, answered, pending_alerts, campaigns, levels"
)
STATE_EVICTIONS = _counter("state_evictions", "Keys evicted from bounded state.", detector=_DETECTOR)
TRANSFORMER_PROMPTS = _counter(
    "transformer_prompts", "Prompts offered to the full sentence transformer.", result="done, over_budget"
)
TRANSPLANTS = _counter(
    "transplants", "Windows that the router itself was to try; `queries` are texts that it scored.",
    result="wanted, over_budget, undecided, queries, no_lift, failed, late",
)  # fmt: skip
CAMPAIGNS = _counter(
    "campaigns", "Windows found to move the router; usual: they were in use before.", result="named, usual"
)
CATALOGUE_VERSION = _gauge("catalogue_version", "Version of the trigger catalogue in force.")
CATALOGUE_ENTRIES = _gauge("catalogue_entries", "Entries matched.", kind="lexical, semantic")

ODDITIES = _counter(
    "oddities", "Valid but out of the ordinary; each is judged or counted, none is an error.",
    what="duplicate_request, duplicate_route, duplicate_outcome, request_id_reused, further_route,"
    " erased_principal, early_outcome_dropped, duplicate_finding, context_finding",
)  # fmt: skip

# Alerts
ALERTS_FIRING = _gauge("alerts_firing", "Alerts that fire now, of this worker's partitions.")
ALERT_TRANSITIONS = _counter(
    "alert_transitions", "Alerts that changed state; lapsed: never fired.", status="firing, resolved, lapsed"
)
NOTIFICATIONS = _counter(
    "notifications", "Alerts told, by channel; failed ones are tried again, dropped ones were refused.",
    channel="the notifiers' names", result="ok, failed, dropped, held_back",
)  # fmt: skip
NOTIFIER_FAILING = _gauge(
    "notifier_failing_seconds", "How long the receiver has not taken the message at hand; 0: it takes them.",
    channel="the notifiers' names",
)  # fmt: skip

# Feedback
AUDIT_LABELS = _counter(
    "audit_labels", "Answers of judges, and reports of the untrusted, by what they were good for.",
    result="counted, canary, worse, redelivered, unfit, refused, untrusted",
)  # fmt: skip
THRESHOLD_UPDATES = _counter(
    "threshold_updates", "Links of the chain of thresholds.",
    mode="proposed, shadow, active, rolled_back, pinned, rejected",
)  # fmt: skip
THRESHOLD_VALUE = _gauge("threshold_value", "Flag thresholds in force.", threshold="`detector.parameter`")

# History
CLICKHOUSE_ROWS = _counter("clickhouse_rows", "Rows inserted.", table="the tables")
CLICKHOUSE_SECONDS = _histogram("clickhouse_insert_seconds", "Wall time of an insert.", _FAST, table="the tables")
CLICKHOUSE_ERRORS = _counter("clickhouse_errors", "Inserts that failed (they are tried again).", table="the tables")

# The process
LOG_DROPPED = _counter("log_dropped", "Log records held back by the rate limit.", logger="aiokafka, faust, mode")
BUILD = Info("build", "What runs.", namespace=PREFIX, registry=REGISTRY)
BUILD.info({"version": version("pointsman")})
DEFINITIONS.append(Definition(f"{PREFIX}_build_info", "gauge", "What runs; always 1.", {"version": "the release"}))

# A processor's counters (`name.label.label`) by the metric that they belong to.
_COUNTED = {
    "verdicts": VERDICTS,
    "unjudged": UNJUDGED,
    "joins": JOINS,
    "findings": FINDINGS,
    "detector_errors": DETECTOR_ERRORS,
    "detector_unable": DETECTOR_UNABLE,
    "state_evictions": STATE_EVICTIONS,
    "dead_letters": DEAD_LETTERS,
    "oddities": ODDITIES,
    "alert_transitions": ALERT_TRANSITIONS,
    "transformer_prompts": TRANSFORMER_PROMPTS,
    "transplants": TRANSPLANTS,
    "campaigns": CAMPAIGNS,
    "audit_labels": AUDIT_LABELS,
    "threshold_updates": THRESHOLD_UPDATES,
}

_HELD = {"state_keys": STATE_KEYS, "alerts_firing": ALERTS_FIRING}


def count(counters: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """Give the metrics what a processor's counters have grown by since `before`; return them as they are now."""
    for key, value in counters.items():
        if grown := value - before.get(key, 0):
            name, *labels = key.split(".")
            _COUNTED[name].labels(*labels).inc(grown)
    return dict(counters)


def gauges(values: Mapping[str, int]) -> None:
    """Publish what processors hold (`name.label`), summed over a worker's partitions."""
    for key, value in values.items():
        name, *labels = key.split(".")
        (_HELD[name].labels(*labels) if labels else _HELD[name]).set(value)


def coverage(counters: Sequence[Mapping[str, int]]) -> None:
    """Publish the share of judged requests, from the counters of all processors; without verdicts it stays."""
    given = sum(value for each in counters for name, value in each.items() if name.startswith("verdicts."))
    if given:
        COVERAGE.set(1 - sum(each.get("verdicts.unjudged", 0) for each in counters) / given)


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)


def markdown() -> str:
    """The page docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Made by `pointsman metrics > docs/metrics.md` from `streams/metrics.py`; served at `/metrics`, beside the",
        "usual `process_*` and `python_info`. No label holds a principal, a tenant, a request or text of an event.",
        "",
        "| metric | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    for name, kind, help_text, labels in DEFINITIONS:
        cell = "; ".join(f"`{label}`: {values}" for label, values in labels.items())
        lines.append(f"| `{name}` | {kind} | {cell} | {help_text} |")
    return "\n".join(lines) + "\n"
