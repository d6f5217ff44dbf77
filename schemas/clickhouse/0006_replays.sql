-- What a replay gave, apart from what was said live, by run; and the tombstones of erased principals, which outlive
-- all that they cover.

-- up

CREATE TABLE IF NOT EXISTS replay_runs
(
    run_id String,
    made_at DateTime64(3, 'UTC'),
    source LowCardinality(String),
    warm_from DateTime64(3, 'UTC'),
    begins DateTime64(3, 'UTC'),
    ends DateTime64(3, 'UTC'),
    pins String CODEC(ZSTD(3)),
    events UInt64,
    left_out UInt64,
    verdicts UInt64,
    flagged UInt64,
    findings UInt64,
    alerts UInt64
)
ENGINE = ReplacingMergeTree(made_at)
ORDER BY run_id
TTL toDateTime(made_at) + INTERVAL 180 DAY;

CREATE TABLE IF NOT EXISTS replay_verdicts
(
    run_id String,
    verdict_id String,
    request_id String,
    event_time DateTime64(3, 'UTC'),
    time DateTime64(3, 'UTC'),
    tenant_id LowCardinality(String),
    principal_hash String,
    decision LowCardinality(String),
    unjudged_reason LowCardinality(String),
    flagged_by Array(LowCardinality(String)),
    scores Map(LowCardinality(String), Float64),
    router_name LowCardinality(String),
    selected_model LowCardinality(String),
    tier LowCardinality(String)
)
ENGINE = ReplacingMergeTree
ORDER BY (run_id, verdict_id)
TTL toDateTime(event_time) + INTERVAL 180 DAY
SETTINGS non_replicated_deduplication_window = 0;

CREATE TABLE IF NOT EXISTS replay_findings
(
    run_id String,
    finding_id String,
    kind LowCardinality(String),
    severity LowCardinality(String),
    time DateTime64(3, 'UTC'),
    labels Map(LowCardinality(String), String),
    detector LowCardinality(String),
    detector_version LowCardinality(String),
    tenant_id LowCardinality(String),
    principal_hash String,
    router_name LowCardinality(String),
    request_id String,
    score Float64,
    threshold Float64,
    stage LowCardinality(String),
    window String,
    trigger_id String,
    note String
)
ENGINE = ReplacingMergeTree
ORDER BY (run_id, finding_id)
TTL toDateTime(time) + INTERVAL 400 DAY
SETTINGS non_replicated_deduplication_window = 0;

CREATE TABLE IF NOT EXISTS replay_alerts
(
    run_id String,
    fired_at DateTime64(3, 'UTC'),
    alert_id String,
    fingerprint String,
    alertname LowCardinality(String),
    category LowCardinality(String),
    severity LowCardinality(String),
    status LowCardinality(String),
    labels Map(LowCardinality(String), String),
    starts_at DateTime64(3, 'UTC'),
    last_seen DateTime64(3, 'UTC'),
    has_ends_at Bool,
    ends_at DateTime64(3, 'UTC'),
    count UInt64,
    principals UInt64,
    tenants UInt64,
    tenant_id LowCardinality(String),
    principal_hash String,
    score Float64,
    threshold Float64,
    first_request_id String,
    request_ids Array(String)
)
ENGINE = ReplacingMergeTree
ORDER BY (run_id, alert_id)
TTL toDateTime(starts_at) + INTERVAL 400 DAY
SETTINGS non_replicated_deduplication_window = 0;

CREATE TABLE IF NOT EXISTS erasures
(
    tenant_id LowCardinality(String),
    principal_hash String,
    until DateTime64(3, 'UTC'),
    actor String,
    reason String
)
ENGINE = ReplacingMergeTree(until)
ORDER BY (tenant_id, principal_hash);

-- down

DROP TABLE IF EXISTS erasures;
DROP TABLE IF EXISTS replay_alerts;
DROP TABLE IF EXISTS replay_findings;
DROP TABLE IF EXISTS replay_verdicts;
DROP TABLE IF EXISTS replay_runs;
