-- How far a window or trigger reached: tenants, models and tiers, with the principals and what it cost.
-- param window String = "": fingerprint of a window (give this, or `trigger`, or both: either counts)
-- param trigger String = "": id of a catalogued trigger
-- param since DateTime64(3, 'UTC') = -24h: from this event time on
-- param until DateTime64(3, 'UTC') = now: and before this one
-- bound: granules of `reasons` that the bloom filters leave, and of `outcomes` in the range (one hour longer).

WITH hits AS
(
    SELECT DISTINCT tenant_id, request_id, principal_hash, router_name, selected_model, tier, event_time
    FROM reasons FINAL
    WHERE flagged
        AND (
            ({window:String} != '' AND `window` = {window:String})
            OR ({trigger:String} != '' AND trigger_id = {trigger:String})
        )
        AND event_time >= {since:DateTime64(3, 'UTC')} AND event_time < {until:DateTime64(3, 'UTC')}
)
SELECT
    tenant_id,
    router_name,
    selected_model,
    tier,
    count() AS requests,
    uniqExact(principal_hash) AS principals,
    min(event_time) AS first_seen,
    max(event_time) AS last_seen,
    sum(cost) AS cost_total_usd,
    sum(unsafe) AS unsafe_outcomes
FROM hits
LEFT JOIN
(
    SELECT tenant_id, request_id, sum(cost_usd) AS cost, countIf(evaluation_score_label = 'unsafe') AS unsafe
    FROM outcomes FINAL
    WHERE event_time >= {since:DateTime64(3, 'UTC')}
        AND event_time < {until:DateTime64(3, 'UTC')} + INTERVAL 1 HOUR
        AND request_id IN (SELECT request_id FROM hits)
    GROUP BY tenant_id, request_id
) AS answered USING (tenant_id, request_id)
GROUP BY tenant_id, router_name, selected_model, tier
ORDER BY requests DESC, tenant_id, router_name, selected_model, tier
