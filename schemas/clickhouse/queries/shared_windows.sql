-- Windows that several flagged, upward pushed requests have in common: one trigger under many prompts.
-- param since DateTime64(3, 'UTC') = -24h: from this event time on
-- param until DateTime64(3, 'UTC') = now: and before this one
-- param min_requests UInt32 = 2: distinct requests that a window must have
-- param limit UInt32 = 100: windows at most, the most used first
-- bound: `reasons` of the range, which has a row a reason and not a row a request.

SELECT
    `window`,
    uniqExact(request_id) AS requests,
    uniqExact(principal_hash) AS principals,
    uniqExact(tenant_id) AS tenants,
    arraySort(groupUniqArray(kind)) AS kinds,
    min(event_time) AS first_seen,
    max(event_time) AS last_seen,
    arraySort(groupUniqArray(20)(request_id)) AS some_request_ids
FROM reasons FINAL
WHERE flagged
    AND `window` != ''
    AND direction = 'up'
    AND event_time >= {since:DateTime64(3, 'UTC')} AND event_time < {until:DateTime64(3, 'UTC')}
GROUP BY `window`
HAVING requests >= {min_requests:UInt32}
ORDER BY requests DESC, `window`
LIMIT {limit:UInt32}
