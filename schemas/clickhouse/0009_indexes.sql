-- The sort key begins with the tenant. Questions across tenants, about one principal or one day, would read the whole
-- month without these.

-- up

ALTER TABLE requests ADD INDEX IF NOT EXISTS by_principal_hash principal_hash TYPE bloom_filter(0.01) GRANULARITY 1;
ALTER TABLE requests ADD INDEX IF NOT EXISTS by_event_time event_time TYPE minmax GRANULARITY 1;
ALTER TABLE requests MATERIALIZE INDEX IF EXISTS by_principal_hash;
ALTER TABLE requests MATERIALIZE INDEX IF EXISTS by_event_time;
ALTER TABLE routes ADD INDEX IF NOT EXISTS by_principal_hash principal_hash TYPE bloom_filter(0.01) GRANULARITY 1;
ALTER TABLE routes ADD INDEX IF NOT EXISTS by_event_time event_time TYPE minmax GRANULARITY 1;
ALTER TABLE routes MATERIALIZE INDEX IF EXISTS by_principal_hash;
ALTER TABLE routes MATERIALIZE INDEX IF EXISTS by_event_time;
ALTER TABLE outcomes ADD INDEX IF NOT EXISTS by_principal_hash principal_hash TYPE bloom_filter(0.01) GRANULARITY 1;
ALTER TABLE outcomes ADD INDEX IF NOT EXISTS by_event_time event_time TYPE minmax GRANULARITY 1;
ALTER TABLE outcomes MATERIALIZE INDEX IF EXISTS by_principal_hash;
ALTER TABLE outcomes MATERIALIZE INDEX IF EXISTS by_event_time;
ALTER TABLE verdicts ADD INDEX IF NOT EXISTS by_principal_hash principal_hash TYPE bloom_filter(0.01) GRANULARITY 1;
ALTER TABLE verdicts ADD INDEX IF NOT EXISTS by_event_time event_time TYPE minmax GRANULARITY 1;
ALTER TABLE verdicts MATERIALIZE INDEX IF EXISTS by_principal_hash;
ALTER TABLE verdicts MATERIALIZE INDEX IF EXISTS by_event_time;

-- down

ALTER TABLE verdicts DROP INDEX IF EXISTS by_event_time;
ALTER TABLE verdicts DROP INDEX IF EXISTS by_principal_hash;
ALTER TABLE outcomes DROP INDEX IF EXISTS by_event_time;
ALTER TABLE outcomes DROP INDEX IF EXISTS by_principal_hash;
ALTER TABLE routes DROP INDEX IF EXISTS by_event_time;
ALTER TABLE routes DROP INDEX IF EXISTS by_principal_hash;
ALTER TABLE requests DROP INDEX IF EXISTS by_event_time;
ALTER TABLE requests DROP INDEX IF EXISTS by_principal_hash;
