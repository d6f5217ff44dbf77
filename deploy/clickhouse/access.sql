-- Who may read and write Pointsman's history. Run it once, as an administrator, after `pointsman migrate`; the
-- database is the one that you are in. Give each user one of the three roles:
--   pointsman_service   the history lane, `pointsman migrate` and `pointsman erase`
--   pointsman_analyst   reads everything, under a quota, and keeps replays of the past
--   pointsman_tenant    reads the rows of its own tenant: the user's name is the tenant's id

CREATE ROLE IF NOT EXISTS pointsman_service;
CREATE ROLE IF NOT EXISTS pointsman_analyst;
CREATE ROLE IF NOT EXISTS pointsman_tenant;

GRANT SELECT, INSERT, ALTER, CREATE, DROP ON * TO pointsman_service;
GRANT SELECT ON * TO pointsman_analyst;
GRANT INSERT, ALTER DELETE ON replay_runs TO pointsman_analyst;
GRANT INSERT, ALTER DELETE ON replay_verdicts TO pointsman_analyst;
GRANT INSERT, ALTER DELETE ON replay_findings TO pointsman_analyst;
GRANT INSERT, ALTER DELETE ON replay_alerts TO pointsman_analyst;
GRANT SELECT ON requests TO pointsman_tenant;
GRANT SELECT ON routes TO pointsman_tenant;
GRANT SELECT ON outcomes TO pointsman_tenant;
GRANT SELECT ON verdicts TO pointsman_tenant;
GRANT SELECT ON reasons TO pointsman_tenant;
GRANT SELECT ON findings TO pointsman_tenant;

CREATE ROW POLICY IF NOT EXISTS pointsman_all
ON requests, routes, outcomes, verdicts, reasons, findings
USING 1 TO pointsman_service, pointsman_analyst;

CREATE ROW POLICY IF NOT EXISTS pointsman_own
ON requests, routes, outcomes, verdicts, reasons, findings
USING tenant_id = currentUser() TO pointsman_tenant;

-- One analyst's slip must not starve the history lane of its engine.
CREATE QUOTA IF NOT EXISTS pointsman_reading
KEYED BY user_name
FOR INTERVAL 1 hour MAX queries = 2000, read_rows = 20000000000, execution_time = 1800
TO pointsman_analyst, pointsman_tenant;
