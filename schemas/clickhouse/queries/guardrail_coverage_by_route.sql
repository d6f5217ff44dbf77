-- Which routes answer without a guardrail's verdict: by model, cache hit, fail-over and stream.
-- param since DateTime64(3, 'UTC') = -24h: from this event time on
-- param until DateTime64(3, 'UTC') = now: and before this one
-- bound: `requests`, `routes` and `outcomes` of the range (outcomes one hour longer: they come later).

SELECT
    router_name,
    selected_model,
    cache_hit,
    failed_over,
    streamed,
    count() AS answered_requests,
    countIf(guarded) AS guarded_requests,
    guarded_requests / answered_requests AS guarded_share,
    countIf(verdict = 'deny') AS denied
FROM
(
    SELECT tenant_id, request_id, max(guardrail_verdict != '') AS guarded, max(guardrail_verdict) AS verdict
    FROM outcomes FINAL
    WHERE event_time >= {since:DateTime64(3, 'UTC')}
        AND event_time < {until:DateTime64(3, 'UTC')} + INTERVAL 1 HOUR
    GROUP BY tenant_id, request_id
) AS answered
INNER JOIN
(
    SELECT
        tenant_id,
        request_id,
        argMax(taken.router_name, (taken.attempt, taken.event_time)) AS router_name,
        argMax(taken.selected_model, (taken.attempt, taken.event_time)) AS selected_model,
        argMax(taken.cache_hit, (taken.attempt, taken.event_time)) AS cache_hit,
        argMax(taken.fallback_from != '', (taken.attempt, taken.event_time)) AS failed_over
    FROM routes AS taken FINAL
    WHERE event_time >= {since:DateTime64(3, 'UTC')} AND event_time < {until:DateTime64(3, 'UTC')}
    GROUP BY tenant_id, request_id
) AS routed USING (tenant_id, request_id)
LEFT JOIN
(
    SELECT tenant_id, request_id, max(request_stream) AS streamed
    FROM requests FINAL
    WHERE event_time >= {since:DateTime64(3, 'UTC')} AND event_time < {until:DateTime64(3, 'UTC')}
    GROUP BY tenant_id, request_id
) AS asked USING (tenant_id, request_id)
GROUP BY router_name, selected_model, cache_hit, failed_over, streamed
ORDER BY guarded_share, answered_requests DESC, router_name, selected_model, cache_hit, failed_over, streamed
