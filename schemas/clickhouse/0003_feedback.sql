-- Threshold updates (the topic is compacted, so this is the only full record; it has no TTL) and audit labels.

-- up

CREATE TABLE IF NOT EXISTS thresholds
(
    update_id String,
    detector LowCardinality(String),
    router_name LowCardinality(String),
    route LowCardinality(String),
    category LowCardinality(String),
    tenant_id LowCardinality(String),
    parameter LowCardinality(String),
    has_old_value Bool,
    old_value Float64,
    new_value Float64,
    direction LowCardinality(String),
    version UInt32,
    mode LowCardinality(String),
    cause LowCardinality(String),
    time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    n_trusted UInt64,
    n_principals UInt64,
    n_tenants UInt64,
    has_risk_ucb Bool,
    risk_ucb Float64,
    has_e_value Bool,
    e_value Float64,
    has_alpha Bool,
    alpha Float64,
    has_delta Bool,
    delta Float64,
    has_epsilon Bool,
    epsilon Float64,
    has_cost_usd_per_day Bool,
    cost_usd_per_day Float64,
    actor String,
    approver String,
    reason String,
    has_expires_at Bool,
    expires_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    prev_hash String,
    hash String,
    log_partition UInt32,
    log_offset UInt64 CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(log_offset)
ORDER BY (detector, parameter, version, update_id)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS audits
(
    label_id String,
    ticket_id String,
    request_id String,
    tenant_id LowCardinality(String),
    principal_hash String,
    detector LowCardinality(String),
    route LowCardinality(String),
    category LowCardinality(String),
    score Float64,
    threshold Float64,
    threshold_version UInt32,
    weight Float64,
    issued_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    canary Bool,
    judge LowCardinality(String),
    label LowCardinality(String),
    has_confidence Bool,
    confidence Float64,
    labelled_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    log_partition UInt32,
    log_offset UInt64 CODEC(Delta, ZSTD(1)),
    INDEX by_request_id request_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(log_offset)
PARTITION BY toYYYYMM(labelled_at)
ORDER BY (tenant_id, toDate(labelled_at), ticket_id, label_id)
TTL toDateTime(labelled_at) + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

-- down

DROP TABLE IF EXISTS audits;
DROP TABLE IF EXISTS thresholds;
