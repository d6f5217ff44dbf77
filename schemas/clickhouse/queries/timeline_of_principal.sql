-- Everything that history has on one principal, in order: requests, routes, outcomes, verdicts and findings.
-- param principal String: the payer's hash, as in `principal_hash`
-- param since DateTime64(3, 'UTC') = -24h: from this event time on
-- param until DateTime64(3, 'UTC') = now: and before this one
-- param limit UInt32 = 1000: rows at most
-- bound: the principal's granules of the four tables keyed by it; `findings` by its bloom filter.

SELECT event_time, what, tenant_id, request_id, detail
FROM
(
    SELECT event_time, 1 AS step, 'request' AS what, tenant_id, request_id,
        concat(request_model, ', ', toString(prompt_chars), ' characters') AS detail
    FROM requests FINAL
    WHERE principal_hash = {principal:String}
        AND event_time >= {since:DateTime64(3, 'UTC')} AND event_time < {until:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT event_time, 2, 'route', tenant_id, request_id,
        concat(router_name, ' to ', selected_model, ', tier ', tier, if(escalated, ', escalated', ''))
    FROM routes FINAL
    WHERE principal_hash = {principal:String}
        AND event_time >= {since:DateTime64(3, 'UTC')} AND event_time < {until:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT event_time, 3, 'verdict', tenant_id, request_id,
        concat(decision, if(unjudged_reason = '', '', concat(', ', unjudged_reason)),
            if(empty(flagged_by), '', concat(' by ', arrayStringConcat(flagged_by, ', '))))
    FROM verdicts FINAL
    WHERE principal_hash = {principal:String}
        AND event_time >= {since:DateTime64(3, 'UTC')} AND event_time < {until:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT event_time, 4, 'outcome', tenant_id, request_id,
        concat(response_status, ' of ', response_model, if(has_cost_usd, concat(', USD ', toString(cost_usd)), ''))
    FROM outcomes FINAL
    WHERE principal_hash = {principal:String}
        AND event_time >= {since:DateTime64(3, 'UTC')} AND event_time < {until:DateTime64(3, 'UTC')}
    UNION ALL
    SELECT time, 5, 'finding', tenant_id, request_id, concat(kind, ', ', severity,
            if(labels['alertname'] IN ('', kind), '', concat(', for ', labels['alertname'])),
            if(campaign = '', '', ', told by a campaign'))
    FROM findings FINAL
    WHERE principal_hash = {principal:String}
        AND time >= {since:DateTime64(3, 'UTC')} AND time < {until:DateTime64(3, 'UTC')}
)
ORDER BY event_time, step, request_id
LIMIT {limit:UInt32}
