-- Why requests could not be judged, by router and reason; `no_verdict`: history has none for them at all.
-- param since DateTime64(3, 'UTC') = -24h: from this event time on
-- param until DateTime64(3, 'UTC') = now: and before this one
-- bound: `requests` and `verdicts` of the range.

SELECT
    if(decision = '', 'no_verdict', unjudged_reason) AS reason,
    router_name,
    count() AS requests,
    uniqExact(principal_hash) AS principals,
    arraySort(arrayDistinct(arrayFlatten(groupArray(unable)))) AS unable_detectors,
    min(event_time) AS first_seen,
    max(event_time) AS last_seen
FROM
(
    SELECT event_id, principal_hash, event_time
    FROM requests FINAL
    WHERE event_time >= {since:DateTime64(3, 'UTC')} AND event_time < {until:DateTime64(3, 'UTC')}
) AS asked
LEFT JOIN
(
    SELECT event_id, router_name, decision, unjudged_reason, unable
    FROM verdicts FINAL
    WHERE event_time >= {since:DateTime64(3, 'UTC')} AND event_time < {until:DateTime64(3, 'UTC')}
) AS verdict USING event_id
WHERE decision IN ('unjudged', '')
GROUP BY reason, router_name
ORDER BY requests DESC, reason, router_name
