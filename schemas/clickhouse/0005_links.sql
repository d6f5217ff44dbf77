-- The hash chain of thresholds as it was signed, and what an audit label's question was about. Two links merge only
-- where they are the same to the byte: a forged second version of one stays beside the true one, to be seen. No TTL.

-- up

CREATE TABLE IF NOT EXISTS threshold_links
(
    version UInt32,
    update_id String,
    time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    link String CODEC(ZSTD(3)),
    log_partition UInt32,
    log_offset UInt64 CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(log_offset)
ORDER BY (version, link)
SETTINGS non_replicated_deduplication_window = 1000;

ALTER TABLE audits ADD COLUMN IF NOT EXISTS parameter LowCardinality(String) AFTER detector;

ALTER TABLE audits ADD COLUMN IF NOT EXISTS router_name LowCardinality(String) AFTER parameter;

ALTER TABLE audits ADD COLUMN IF NOT EXISTS stratum LowCardinality(String) AFTER category;

ALTER TABLE audits DROP COLUMN IF EXISTS canary;

-- down

ALTER TABLE audits ADD COLUMN IF NOT EXISTS canary Bool;

ALTER TABLE audits DROP COLUMN IF EXISTS stratum;

ALTER TABLE audits DROP COLUMN IF EXISTS router_name;

ALTER TABLE audits DROP COLUMN IF EXISTS parameter;

DROP TABLE IF EXISTS threshold_links;
