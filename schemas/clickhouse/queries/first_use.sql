-- Who used a window or trigger, the first user first.
-- param window String = "": fingerprint of a window (give this, or `trigger`, or both: either counts)
-- param trigger String = "": id of a catalogued trigger
-- param since DateTime64(3, 'UTC') = -24h: from this event time on
-- param until DateTime64(3, 'UTC') = now: and before this one
-- param limit UInt32 = 100: principals at most
-- bound: granules of `reasons` in the range that the bloom filters of `window` and `trigger_id` leave.

SELECT
    tenant_id,
    principal_hash,
    min(event_time) AS first_seen,
    argMin(request_id, (event_time, verdict_id)) AS first_request_id,
    max(event_time) AS last_seen,
    uniqExact(request_id) AS requests
FROM reasons FINAL
WHERE flagged
    AND (
        ({window:String} != '' AND `window` = {window:String})
        OR ({trigger:String} != '' AND trigger_id = {trigger:String})
    )
    AND event_time >= {since:DateTime64(3, 'UTC')} AND event_time < {until:DateTime64(3, 'UTC')}
GROUP BY tenant_id, principal_hash
ORDER BY first_seen, first_request_id
LIMIT {limit:UInt32}
