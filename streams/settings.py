"""What can be set: every section and key, with its type, bounds, default and meaning.

They are read by streams/configuration.py; docs/settings.md is made from here (`pointsman config docs`).
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

_SECRET = {"secret": True}
Positive = Meta(gt=0, le=86_400)


class Kafka(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The broker. Without `bootstrap` the embedded one."""

    bootstrap: Annotated[str, Meta(description="host:port list; empty: the embedded node")] = ""
    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], Meta(description="how to connect")
    ] = "PLAINTEXT"
    sasl_mechanism: Annotated[
        Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], Meta(description="with a SASL protocol")
    ] = ""
    sasl_username: Annotated[str, Meta(description="with a SASL protocol")] = ""
    sasl_password: Annotated[str, Meta(description="with a SASL protocol", extra=_SECRET)] = ""
    ssl_cafile: Annotated[str, Meta(description="PEM of the authorities to trust; empty: the system's")] = ""
    ssl_certfile: Annotated[str, Meta(description="PEM of our certificate, for mutual TLS")] = ""
    ssl_keyfile: Annotated[str, Meta(description="PEM of its key, for mutual TLS")] = ""
    client_id: Annotated[str, Meta(min_length=1, description="name in the broker's logs and quotas")] = "pointsman"
    instance_id: Annotated[
        str,
        Meta(description="static group membership: one id a process (the pod's name), or one ends; empty: none"),
    ] = ""
    session_seconds: Annotated[
        float, Meta(ge=6, le=300, description="silence after which the group gives our partitions to others")
    ] = 10.0
    topic_suffix: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9._-]{0,64}$", description="after every topic's and group's name")
    ] = ""
    partitions: Annotated[int, Meta(ge=1, le=1024, description="of the events topic and those like it")] = 6
    replication: Annotated[int, Meta(ge=1, le=9, description="copies of each partition of topics made by us")] = 1


class ClickHouse(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The history. Without `dsn` the embedded engine, which one process at a time can open."""

    dsn: Annotated[
        str, Meta(description="clickhouse://user:password@host:port; empty: the embedded engine", extra=_SECRET)
    ] = ""
    path: Annotated[str, Meta(min_length=1, description="folder of the embedded engine")] = "var/clickhouse"
    database: Annotated[
        str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$", description="database of all tables")
    ] = "pointsman"
    group: Annotated[str, Meta(min_length=1, description="consumer group of the history lane")] = (
        "pointsman-history"
    )
    batch_rows: Annotated[int, Meta(ge=1, le=1_000_000, description="rows an insert, at most")] = 50_000
    batch_seconds: Annotated[float, Positive, Meta(description="longest wait before an insert")] = 1.0


class Detect(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The detect lane."""

    group: Annotated[str, Meta(min_length=1, description="consumer group")] = "pointsman-detect"
    checkpoint_seconds: Annotated[float, Positive, Meta(description="between checkpoints, at most")] = 2.0
    checkpoint_events: Annotated[
        int,
        Meta(ge=1, le=10_000_000, description="events between checkpoints, at most: bounds what a crash redoes"),
    ] = 10_000
    join_grace_seconds: Annotated[
        float, Positive, Meta(description="stream time that a request waits for its route")
    ] = 2.0
    outcome_ttl_seconds: Annotated[
        float, Positive, Meta(description="stream time that a judged request is kept for its outcomes")
    ] = 300.0
    transformer_per_second: Annotated[
        float, Meta(ge=0, le=10_000, description="budget of the full sentence transformer, prompts; 0: off")
    ] = 0.0
    novelty_model: Annotated[
        str,
        Meta(description="artefact that `pointsman novelty fit` made of a fleet's prompts; empty: the shipped one"),
    ] = ""
    custody_rules: Annotated[
        str, Meta(description="YAML file of custody's rules (docs/detectors/custody.md); empty: none")
    ] = ""
    window_text: Annotated[
        bool,
        Meta(description="windows that come back travel with their text, for a week at most: transplants need it"),
    ] = False
    dead_letter_max_ratio: Annotated[
        float, Meta(gt=0, le=1, description="share of invalid events beyond which the lane stops instead")
    ] = 0.95
    dead_letter_min_count: Annotated[
        int, Meta(ge=1, le=10_000_000, description="invalid events before that share is looked at")
    ] = 100_000


class Fleet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fleet lane: findings to alerts."""

    group: Annotated[str, Meta(min_length=1, description="consumer group")] = "pointsman-fleet"
    detections: Annotated[
        str,
        Meta(description="folder of detections of your own, over those that ship; the detect lane reads it too"),
    ] = ""
    resend_seconds: Annotated[float, Positive, Meta(description="between refreshes of a firing alert")] = 60.0
    router_url: Annotated[
        str,
        Meta(
            description="scores texts for transplants: POST of {texts: [...]} gives {scores: [...]}, higher is"
            " harder; needs detect.window_text; empty: none are made",
            extra=_SECRET,
        ),
    ] = ""
    router_timeout_seconds: Annotated[float, Positive, Meta(description="for one answer of it")] = 10.0
    probes: Annotated[
        str,
        Meta(
            description="JSONL of 40 or more ordinary prompts of the fleet, with a `text` each; empty: the shipped"
        ),
    ] = ""


class Feedback(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Audit tickets, and the thresholds that move with their answers. Off without `key`: docs/feedback.md."""

    key: Annotated[
        str,
        Meta(
            description="draws and signs tickets, signs updates: 16 characters or more; empty: off", extra=_SECRET
        ),
    ] = ""
    key_id: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9._-]{1,32}$", description="names that key in each signature")
    ] = "1"
    old_keys: Annotated[
        str,
        Meta(
            description="`id:key` of former keys, with spaces between: what they signed still counts", extra=_SECRET
        ),
    ] = ""
    mode: Annotated[
        Literal["observe", "propose", "shadow", "active"],
        Meta(description="what the evidence may do: count, propose, publish beside what is in force, or move it"),
    ] = "propose"
    group: Annotated[str, Meta(min_length=1, description="consumer groups of the lane and of its relay")] = (
        "pointsman-feedback"
    )
    audit_share: Annotated[
        float, Meta(gt=0, le=1, description="share of the principals of a period of whom a request is audited")
    ] = 0.01
    audit_period_seconds: Annotated[
        float, Positive, Meta(description="stream time of one draw: a principal is drawn, then one of its requests")
    ] = 3_600.0
    audit_per_day: Annotated[int, Meta(ge=1, le=86_400, description="tickets of one principal a day, at most")] = 4
    ticket_days: Annotated[float, Meta(gt=0, le=90, description="for which a ticket may be answered")] = 14.0
    canaries: Annotated[str, Meta(description="JSONL of requests whose answer is known; empty: none")] = ""
    canary_share: Annotated[
        float, Meta(ge=0, le=1, description="canary tickets a drawn one, where there are canaries")
    ] = 0.05
    silence_hours: Annotated[
        float, Positive, Meta(description="tickets are drawn, and none is answered for so long: an alert")
    ] = 24.0
    ladder: Annotated[
        str, Meta(description="models, weakest first, with spaces between: for proposals of stronger routes")
    ] = ""
    approvers: Annotated[
        str, Meta(description="`name:key` of each, with spaces between; empty: no value passes its ceiling",
                  extra=_SECRET),
    ] = ""  # fmt: skip


class Notify(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is told of alerts."""

    group: Annotated[
        str, Meta(min_length=1, description="consumer groups, one a channel: its name is put behind")
    ] = "pointsman-notify"
    console: Annotated[bool, Meta(description="write each transition to standard output")] = True
    webhook_url: Annotated[str, Meta(description="receives alerts by POST; empty: none", extra=_SECRET)] = ""
    webhook_secret: Annotated[str, Meta(description="signs what is posted (HMAC-SHA256)", extra=_SECRET)] = ""
    alertmanager_url: Annotated[
        str, Meta(description="base address of an Alertmanager (its API v2); empty: none", extra=_SECRET)
    ] = ""
    pagerduty_routing_key: Annotated[
        str, Meta(description="integration key of a PagerDuty service (Events v2); empty: none", extra=_SECRET)
    ] = ""
    pagerduty_url: Annotated[
        str, Meta(min_length=1, description="where its events go; EU accounts have another")
    ] = "https://events.pagerduty.com/v2/enqueue"
    slack_url: Annotated[
        str, Meta(description="incoming webhook of a Slack channel; empty: none", extra=_SECRET)
    ] = ""
    alerts_per_minute: Annotated[
        int,
        Meta(ge=0, le=10_000, description="alerts of one name that a channel is told one by one; 0: no cap"),
    ] = 20


class Gateway(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Publishing from a gateway; the service itself reads none of it."""

    identity_key: Annotated[
        str, Meta(description="key of the hashes of keys and users, 16 characters or more", extra=_SECRET)
    ] = ""
    identity_key_id: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9._-]{1,32}$", description="names that key in each hash")
    ] = "1"
    prompt: Annotated[
        Literal["full", "ends", "hash"],
        Meta(description="what of a prompt's text is published; with `hash` it cannot be judged"),
    ] = "ends"
    instance: Annotated[str, Meta(max_length=256, description="in the events' source; empty: the host's name")] = ""
    queue_bytes: Annotated[
        int, Meta(ge=1, le=1 << 32, description="what may wait for the brokers before events are dropped")
    ] = 32 << 20


class Guard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The check of a prompt before it is routed, in the gateway's own process."""

    fail: Annotated[
        Literal["", "open", "closed"],
        Meta(description="whether a request that could not be judged passes (open) or not; empty: no guard"),
    ] = ""
    refuse: Annotated[str, Meta(description="kinds of finding that a request must not have, by commas")] = (
        "known_trigger"
    )
    budget_ms: Annotated[float, Positive, Meta(description="longest that a request waits for its verdict")] = 50.0
    catalogue: Annotated[
        str, Meta(description="JSONL file of the triggers; with neither file the control topics are followed")
    ] = ""
    thresholds: Annotated[str, Meta(description="JSON file of thresholds by name; empty: as shipped")] = ""


class Web(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Health and metrics."""

    host: Annotated[str, Meta(min_length=1, description="address to listen at")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="port; 0: any free one")] = 8080


class Log(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The log, on standard error."""

    level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], Meta(description="least severity that is written")
    ] = "INFO"
    json: Annotated[bool, Meta(description="one JSON object a line; false: for people")] = True


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All sections."""

    kafka: Kafka = Kafka()
    clickhouse: ClickHouse = ClickHouse()
    detect: Detect = Detect()
    fleet: Fleet = Fleet()
    feedback: Feedback = Feedback()
    notify: Notify = Notify()
    gateway: Gateway = Gateway()
    guard: Guard = Guard()
    web: Web = Web()
    log: Log = Log()


class SettingsError(ValueError):
    """Every problem found, each with the key and the source that it came from."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))
