-- Each principal's strong share and cost against its own past: who left it, by how much, the dearest first.
-- param since DateTime64(3, 'UTC') = -24h: from this event time on
-- param until DateTime64(3, 'UTC') = now: and before this one
-- param past_days UInt32 = 7: days before `since` that are the past
-- param strong_rank UInt32 = 2: tiers from this rank on are strong
-- param min_requests UInt32 = 20: requests that a principal must have in the range
-- param limit UInt32 = 100: rows at most
-- bound: `verdicts` and `outcomes` of the range and of the days before it.

SELECT
    tenant_id,
    principal_hash,
    now_requests AS requests,
    now_strong / now_requests AS strong_share,
    if(past_requests = 0, 0, past_strong / past_requests) AS past_strong_share,
    past_requests,
    now_cost_usd AS cost_total_usd,
    now_cost_usd / greatest(now_requests, 1) AS usd_per_request,
    if(past_requests = 0, 0, past_cost_usd / past_requests) AS past_usd_per_request
FROM
(
    SELECT
        tenant_id,
        principal_hash,
        countIf(event_time >= {since:DateTime64(3, 'UTC')}) AS now_requests,
        countIf(event_time >= {since:DateTime64(3, 'UTC')} AND has_tier_rank AND tier_rank >= {strong_rank:UInt32})
            AS now_strong,
        countIf(event_time < {since:DateTime64(3, 'UTC')}) AS past_requests,
        countIf(event_time < {since:DateTime64(3, 'UTC')} AND has_tier_rank AND tier_rank >= {strong_rank:UInt32})
            AS past_strong
    FROM verdicts FINAL
    WHERE event_time >= {since:DateTime64(3, 'UTC')} - toIntervalDay({past_days:UInt32})
        AND event_time < {until:DateTime64(3, 'UTC')}
    GROUP BY tenant_id, principal_hash
    HAVING now_requests >= {min_requests:UInt32}
) AS asked
LEFT JOIN
(
    SELECT
        tenant_id,
        principal_hash,
        sumIf(cost_usd, event_time >= {since:DateTime64(3, 'UTC')}) AS now_cost_usd,
        sumIf(cost_usd, event_time < {since:DateTime64(3, 'UTC')}) AS past_cost_usd
    FROM outcomes FINAL
    WHERE event_time >= {since:DateTime64(3, 'UTC')} - toIntervalDay({past_days:UInt32})
        AND event_time < {until:DateTime64(3, 'UTC')}
    GROUP BY tenant_id, principal_hash
) AS paid USING (tenant_id, principal_hash)
ORDER BY cost_total_usd - past_usd_per_request * requests DESC, tenant_id, principal_hash
LIMIT {limit:UInt32}
