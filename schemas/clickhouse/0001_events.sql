-- What gateways published, without any text. The sort key is immutable and ends in the event's id, so that what
-- is inserted again replaces itself; exact reads say FINAL. Partitions and TTL go by the event's own time, which
-- the codec holds within a day of the broker's.

-- up

CREATE TABLE IF NOT EXISTS requests
(
    event_id String,
    event_time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    request_id String,
    tenant_id LowCardinality(String),
    principal_hash String,
    schema_version UInt16,
    trace_id String,
    end_user_hash String,
    gateway_name LowCardinality(String),
    gateway_instance LowCardinality(String),
    gateway_version LowCardinality(String),
    gateway_plugins_hash LowCardinality(String),
    log_partition UInt32,
    log_offset UInt64 CODEC(Delta, ZSTD(1)),
    operation_name LowCardinality(String),
    request_model LowCardinality(String),
    conversation_id String,
    turn_index UInt64,
    request_stream Bool,
    request_max_tokens UInt64,
    prompt_hash String,
    prompt_chars UInt64,
    prompt_tokens_est UInt64,
    n_messages UInt64,
    system_prompt_hash String,
    source_ip_prefix String,
    user_agent String,
    INDEX by_request_id request_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(log_offset)
PARTITION BY toYYYYMM(event_time)
ORDER BY (tenant_id, toDate(event_time), principal_hash, event_time, event_id)
TTL toDateTime(event_time) + INTERVAL 180 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS routes
(
    event_id String,
    event_time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    request_id String,
    tenant_id LowCardinality(String),
    principal_hash String,
    schema_version UInt16,
    trace_id String,
    end_user_hash String,
    gateway_name LowCardinality(String),
    gateway_instance LowCardinality(String),
    gateway_version LowCardinality(String),
    gateway_plugins_hash LowCardinality(String),
    log_partition UInt32,
    log_offset UInt64 CODEC(Delta, ZSTD(1)),
    selected_model LowCardinality(String),
    router_name LowCardinality(String),
    router_type LowCardinality(String),
    router_version LowCardinality(String),
    provider_name LowCardinality(String),
    provider_region LowCardinality(String),
    provider_retention LowCardinality(String),
    has_difficulty_score Bool,
    difficulty_score Float64,
    score_kind LowCardinality(String),
    score_direction Int8,
    has_router_threshold Bool,
    router_threshold Float64,
    threshold_source LowCardinality(String),
    tier_boundaries Map(LowCardinality(String), Float64),
    tier LowCardinality(String),
    has_tier_rank Bool,
    tier_rank UInt16,
    category LowCardinality(String),
    decision_cause LowCardinality(String),
    signals Array(LowCardinality(String)),
    escalated Bool,
    cache_hit Bool,
    attempt UInt16,
    fallback_from LowCardinality(String),
    fallback_chain Array(LowCardinality(String)),
    classifier_model LowCardinality(String),
    has_classifier_confidence Bool,
    classifier_confidence Float64,
    classifier_cost_usd Float64,
    has_cost_estimate_usd Bool,
    cost_estimate_usd Float64,
    baseline_model LowCardinality(String),
    has_baseline_cost_usd Bool,
    baseline_cost_usd Float64,
    counterfactual_ablations Array(LowCardinality(String)),
    counterfactual_tokens Array(UInt64),
    counterfactual_scores Array(Float64),
    INDEX by_request_id request_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(log_offset)
PARTITION BY toYYYYMM(event_time)
ORDER BY (tenant_id, toDate(event_time), principal_hash, event_time, event_id)
TTL toDateTime(event_time) + INTERVAL 180 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS outcomes
(
    event_id String,
    event_time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    request_id String,
    tenant_id LowCardinality(String),
    principal_hash String,
    schema_version UInt16,
    trace_id String,
    end_user_hash String,
    gateway_name LowCardinality(String),
    gateway_instance LowCardinality(String),
    gateway_version LowCardinality(String),
    gateway_plugins_hash LowCardinality(String),
    log_partition UInt32,
    log_offset UInt64 CODEC(Delta, ZSTD(1)),
    response_id String,
    response_model LowCardinality(String),
    response_finish_reasons Array(LowCardinality(String)),
    response_status LowCardinality(String),
    response_path LowCardinality(String),
    error_type LowCardinality(String),
    usage_input_tokens UInt64,
    usage_output_tokens UInt64,
    usage_cache_read_input_tokens UInt64,
    usage_reasoning_output_tokens UInt64,
    has_cost_usd Bool,
    cost_usd Float64,
    cost_source LowCardinality(String),
    duration_s Float64,
    time_to_first_chunk_s Float64,
    evaluation_name LowCardinality(String),
    has_evaluation_score_value Bool,
    evaluation_score_value Float64,
    evaluation_score_label LowCardinality(String),
    guardrail_verdict LowCardinality(String),
    guardrail_action LowCardinality(String),
    risk_category Array(LowCardinality(String)),
    fit_verdict LowCardinality(String),
    outcome_source LowCardinality(String),
    idempotency_key String,
    response_hash_provider String,
    response_hash_client String,
    tool_calls_hash_provider String,
    tool_calls_hash_client String,
    expert_load Array(Array(UInt64)),
    canary_hits Array(String),
    INDEX by_request_id request_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(log_offset)
PARTITION BY toYYYYMM(event_time)
ORDER BY (tenant_id, toDate(event_time), principal_hash, event_time, event_id)
TTL toDateTime(event_time) + INTERVAL 180 DAY
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

-- down

DROP TABLE IF EXISTS outcomes;
DROP TABLE IF EXISTS routes;
DROP TABLE IF EXISTS requests;
