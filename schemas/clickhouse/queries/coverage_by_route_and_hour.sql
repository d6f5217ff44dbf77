-- Of the requests of each route and hour: how many were judged, and how many carried a guardrail's verdict.
-- param since DateTime64(3, 'UTC') = -24h: from this event time on
-- param until DateTime64(3, 'UTC') = now: and before this one
-- bound: `requests`, `verdicts` and `outcomes` of the range (outcomes one hour longer: they come later).

SELECT
    hour,
    router_name,
    selected_model,
    count() AS requests,
    countIf(decision IN ('clean', 'flagged')) AS judged,
    countIf(decision = 'flagged') AS flagged,
    countIf(decision = 'unjudged') AS unjudged,
    countIf(decision = '') AS without_verdict,
    judged / requests AS coverage,
    sum(guarded) AS guarded_requests,
    guarded_requests / requests AS guarded_share
FROM
(
    SELECT tenant_id, request_id, event_id, toStartOfHour(event_time) AS hour
    FROM requests FINAL
    WHERE event_time >= {since:DateTime64(3, 'UTC')} AND event_time < {until:DateTime64(3, 'UTC')}
) AS asked
LEFT JOIN
(
    SELECT event_id, router_name, selected_model, decision
    FROM verdicts FINAL
    WHERE event_time >= {since:DateTime64(3, 'UTC')} AND event_time < {until:DateTime64(3, 'UTC')}
) AS judged_requests USING event_id
LEFT JOIN
(
    SELECT tenant_id, request_id, max(guardrail_verdict != '') AS guarded
    FROM outcomes FINAL
    WHERE event_time >= {since:DateTime64(3, 'UTC')}
        AND event_time < {until:DateTime64(3, 'UTC')} + INTERVAL 1 HOUR
    GROUP BY tenant_id, request_id
) AS answered USING (tenant_id, request_id)
GROUP BY hour, router_name, selected_model
ORDER BY hour, router_name, selected_model
