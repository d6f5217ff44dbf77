-- Per-minute counts for dashboards. A view sees rows before duplicates are merged away, so each state is one
-- that the same row cannot move twice: distinct ids, counted. Money is not summed here for that reason: the
-- query spend_by_principal_and_hour reads it from the outcomes themselves.

-- up

CREATE TABLE IF NOT EXISTS requests_by_minute
(
    minute DateTime('UTC') CODEC(Delta, ZSTD(1)),
    tenant_id LowCardinality(String),
    gateway_name LowCardinality(String),
    requests AggregateFunction(uniqCombined64, String),
    principals AggregateFunction(uniqCombined64, String)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (tenant_id, gateway_name, minute)
TTL minute + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS requests_to_minutes TO requests_by_minute AS
SELECT
    toStartOfMinute(toDateTime(event_time, 'UTC')) AS minute,
    tenant_id,
    gateway_name,
    uniqCombined64State(event_id) AS requests,
    uniqCombined64State(principal_hash) AS principals
FROM requests
GROUP BY minute, tenant_id, gateway_name;

CREATE TABLE IF NOT EXISTS verdicts_by_minute
(
    minute DateTime('UTC') CODEC(Delta, ZSTD(1)),
    tenant_id LowCardinality(String),
    router_name LowCardinality(String),
    selected_model LowCardinality(String),
    decision LowCardinality(String),
    unjudged_reason LowCardinality(String),
    verdicts AggregateFunction(uniqCombined64, String),
    principals AggregateFunction(uniqCombined64, String),
    difficulty_max SimpleAggregateFunction(max, Float64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (tenant_id, router_name, selected_model, decision, unjudged_reason, minute)
TTL minute + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS verdicts_to_minutes TO verdicts_by_minute AS
SELECT
    toStartOfMinute(toDateTime(event_time, 'UTC')) AS minute,
    tenant_id,
    router_name,
    selected_model,
    decision,
    unjudged_reason,
    uniqCombined64State(verdict_id) AS verdicts,
    uniqCombined64State(principal_hash) AS principals,
    max(difficulty_score) AS difficulty_max
FROM verdicts
GROUP BY minute, tenant_id, router_name, selected_model, decision, unjudged_reason;

CREATE TABLE IF NOT EXISTS outcomes_by_minute
(
    minute DateTime('UTC') CODEC(Delta, ZSTD(1)),
    tenant_id LowCardinality(String),
    response_model LowCardinality(String),
    response_status LowCardinality(String),
    guardrail_verdict LowCardinality(String),
    evaluation_score_label LowCardinality(String),
    outcomes AggregateFunction(uniqCombined64, String)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (tenant_id, response_model, response_status, guardrail_verdict, evaluation_score_label, minute)
TTL minute + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS outcomes_to_minutes TO outcomes_by_minute AS
SELECT
    toStartOfMinute(toDateTime(event_time, 'UTC')) AS minute,
    tenant_id,
    response_model,
    response_status,
    guardrail_verdict,
    evaluation_score_label,
    uniqCombined64State(event_id) AS outcomes
FROM outcomes
GROUP BY minute, tenant_id, response_model, response_status, guardrail_verdict, evaluation_score_label;

-- down

DROP VIEW IF EXISTS outcomes_to_minutes;
DROP TABLE IF EXISTS outcomes_by_minute;
DROP VIEW IF EXISTS verdicts_to_minutes;
DROP TABLE IF EXISTS verdicts_by_minute;
DROP VIEW IF EXISTS requests_to_minutes;
DROP TABLE IF EXISTS requests_by_minute;
