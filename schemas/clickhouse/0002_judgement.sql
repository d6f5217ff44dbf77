-- What Pointsman said: verdicts and the reasons in them, findings, every published state of each alert, and what
-- could not be read. `alerts_current` is each alert's latest state.

-- up

CREATE TABLE IF NOT EXISTS verdicts
(
    verdict_id String,
    request_id String,
    event_id String,
    event_time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    tenant_id LowCardinality(String),
    principal_hash String,
    decision LowCardinality(String),
    unjudged_reason LowCardinality(String),
    flagged_by Array(LowCardinality(String)),
    scores Map(LowCardinality(String), Float64),
    unable Array(LowCardinality(String)),
    route_missing Bool,
    router_name LowCardinality(String),
    router_version LowCardinality(String),
    selected_model LowCardinality(String),
    tier LowCardinality(String),
    has_tier_rank Bool,
    tier_rank UInt16,
    has_difficulty_score Bool,
    difficulty_score Float64,
    has_cost_estimate_usd Bool,
    cost_estimate_usd Float64,
    cache_hit Bool,
    fallback_from LowCardinality(String),
    prompt_chars UInt64,
    prompt_hash String,
    catalogue_version UInt32,
    thresholds_version UInt32,
    request_partition UInt32,
    request_offset UInt64,
    log_partition UInt32,
    log_offset UInt64 CODEC(Delta, ZSTD(1)),
    INDEX by_request_id request_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_event_id event_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(log_offset)
PARTITION BY toYYYYMM(event_time)
ORDER BY (tenant_id, toDate(event_time), principal_hash, event_time, verdict_id)
TTL toDateTime(event_time) + INTERVAL 180 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS reasons
(
    verdict_id String,
    number UInt16,
    request_id String,
    event_time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    tenant_id LowCardinality(String),
    principal_hash String,
    router_name LowCardinality(String),
    selected_model LowCardinality(String),
    tier LowCardinality(String),
    flagged Bool,
    detector LowCardinality(String),
    detector_version LowCardinality(String),
    kind LowCardinality(String),
    stage LowCardinality(String),
    score Float64,
    threshold Float64,
    threshold_version UInt32,
    direction LowCardinality(String),
    has_expected Bool,
    expected Float64,
    has_seen Bool,
    seen Float64,
    has_span Bool,
    span_start Int32,
    span_end Int32,
    window String,
    trigger_id String,
    trigger_version UInt32,
    has_share Bool,
    share Float64,
    note String,
    log_partition UInt32,
    log_offset UInt64 CODEC(Delta, ZSTD(1)),
    INDEX by_request_id request_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_window window TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_trigger_id trigger_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(log_offset)
PARTITION BY toYYYYMM(event_time)
ORDER BY (tenant_id, toDate(event_time), principal_hash, event_time, verdict_id, number)
TTL toDateTime(event_time) + INTERVAL 180 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS findings
(
    finding_id String,
    kind LowCardinality(String),
    category LowCardinality(String),
    severity LowCardinality(String),
    time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    labels Map(LowCardinality(String), String),
    detector LowCardinality(String),
    detector_version LowCardinality(String),
    tenant_id LowCardinality(String),
    principal_hash String,
    router_name LowCardinality(String),
    request_id String,
    has_event_time Bool,
    event_time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    score Float64,
    threshold Float64,
    threshold_version UInt32,
    direction LowCardinality(String),
    stage LowCardinality(String),
    has_expected Bool,
    expected Float64,
    has_seen Bool,
    seen Float64,
    window String,
    trigger_id String,
    trigger_version UInt32,
    catalogue_version UInt32,
    has_extra_cost_usd Bool,
    extra_cost_usd Float64,
    request_ids Array(String),
    note String,
    log_partition UInt32,
    log_offset UInt64 CODEC(Delta, ZSTD(1)),
    INDEX by_request_id request_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_principal_hash principal_hash TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_window window TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_trigger_id trigger_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(log_offset)
PARTITION BY toYYYYMM(time)
ORDER BY (tenant_id, toDate(time), kind, time, finding_id)
TTL toDateTime(time) + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS alerts
(
    alert_id String,
    fingerprint String,
    alertname LowCardinality(String),
    category LowCardinality(String),
    severity LowCardinality(String),
    status LowCardinality(String),
    labels Map(LowCardinality(String), String),
    starts_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    last_seen DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    has_ends_at Bool,
    ends_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    count UInt64,
    sequence UInt64,
    principals UInt64,
    tenants UInt64,
    detector LowCardinality(String),
    detector_version LowCardinality(String),
    tenant_id LowCardinality(String),
    principal_hash String,
    router_name LowCardinality(String),
    direction LowCardinality(String),
    score Float64,
    threshold Float64,
    threshold_version UInt32,
    catalogue_version UInt32,
    trigger_id String,
    window String,
    has_est_cost_usd Bool,
    est_cost_usd Float64,
    first_request_id String,
    has_first_event_time Bool,
    first_event_time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    request_ids Array(String),
    finding_ids Array(String),
    mitre_atlas Array(LowCardinality(String)),
    owasp Array(LowCardinality(String)),
    runbook_url String,
    summary String,
    suppressed_by String,
    log_partition UInt32,
    log_offset UInt64 CODEC(Delta, ZSTD(1)),
    INDEX by_alert_id alert_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(log_offset)
PARTITION BY toYYYYMM(starts_at)
ORDER BY (tenant_id, fingerprint, alert_id, sequence)
TTL toDateTime(starts_at) + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS dead_letters
(
    letter_id String,
    topic LowCardinality(String),
    original_partition UInt32,
    original_offset UInt64,
    time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    stage LowCardinality(String),
    reason LowCardinality(String),
    field String,
    detail String,
    size UInt64,
    log_partition UInt32,
    log_offset UInt64 CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(log_offset)
PARTITION BY toYYYYMM(time)
ORDER BY (topic, toDate(time), letter_id)
TTL toDateTime(time) + INTERVAL 90 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

CREATE VIEW IF NOT EXISTS alerts_current AS
SELECT * FROM alerts ORDER BY sequence DESC, log_offset DESC LIMIT 1 BY alert_id;

-- down

DROP VIEW IF EXISTS alerts_current;
DROP TABLE IF EXISTS dead_letters;
DROP TABLE IF EXISTS alerts;
DROP TABLE IF EXISTS findings;
DROP TABLE IF EXISTS reasons;
DROP TABLE IF EXISTS verdicts;
