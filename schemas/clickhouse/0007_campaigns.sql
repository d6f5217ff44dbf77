-- What alerts say of campaigns: members, and which campaign stands for an alert. The view is made anew: its columns
-- are those that the table had when it was made.

-- up

ALTER TABLE alerts ADD COLUMN IF NOT EXISTS attributes Map(LowCardinality(String), Array(String));
ALTER TABLE alerts ADD COLUMN IF NOT EXISTS campaign Bool;
ALTER TABLE alerts ADD COLUMN IF NOT EXISTS inhibited_by String;
ALTER TABLE findings ADD COLUMN IF NOT EXISTS campaign String;
DROP VIEW IF EXISTS alerts_current;
CREATE VIEW IF NOT EXISTS alerts_current AS
SELECT * FROM alerts ORDER BY sequence DESC, log_offset DESC LIMIT 1 BY alert_id;

-- down

ALTER TABLE findings DROP COLUMN IF EXISTS campaign;
ALTER TABLE alerts DROP COLUMN IF EXISTS inhibited_by;
ALTER TABLE alerts DROP COLUMN IF EXISTS campaign;
ALTER TABLE alerts DROP COLUMN IF EXISTS attributes;
DROP VIEW IF EXISTS alerts_current;
CREATE VIEW IF NOT EXISTS alerts_current AS
SELECT * FROM alerts ORDER BY sequence DESC, log_offset DESC LIMIT 1 BY alert_id;
