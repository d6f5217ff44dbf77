-- What each principal's outcomes cost, hour by hour, the dearest first.
-- param tenant String = "": one tenant; empty: all
-- param since DateTime64(3, 'UTC') = -24h: from this event time on
-- param until DateTime64(3, 'UTC') = now: and before this one
-- param limit UInt32 = 1000: rows at most
-- bound: `outcomes` of the range (of one tenant, where one is given).

SELECT
    toStartOfHour(event_time) AS hour,
    tenant_id,
    principal_hash,
    count() AS outcomes,
    countIf(has_cost_usd) AS priced,
    sum(cost_usd) AS cost_total_usd,
    sum(usage_input_tokens) AS input_tokens,
    sum(usage_output_tokens) AS output_tokens,
    arraySort(groupUniqArray(10)(response_model)) AS models
FROM outcomes FINAL
WHERE ({tenant:String} = '' OR tenant_id = {tenant:String})
    AND event_time >= {since:DateTime64(3, 'UTC')} AND event_time < {until:DateTime64(3, 'UTC')}
GROUP BY hour, tenant_id, principal_hash
ORDER BY cost_total_usd DESC, hour, tenant_id, principal_hash
LIMIT {limit:UInt32}
