-- Every verdict on one principal's requests, in the order of their event times.
-- param principal String: the payer's hash, as in `principal_hash`
-- param since DateTime64(3, 'UTC') = -24h: from this event time on
-- param until DateTime64(3, 'UTC') = now: and before this one
-- param limit UInt32 = 1000: rows at most
-- bound: the principal's granules of `verdicts` in each tenant and day of the range.

SELECT
    event_time,
    verdict_id,
    request_id,
    tenant_id,
    decision,
    unjudged_reason,
    flagged_by,
    router_name,
    selected_model,
    tier,
    has_difficulty_score,
    difficulty_score,
    cost_estimate_usd
FROM verdicts FINAL
WHERE principal_hash = {principal:String}
    AND event_time >= {since:DateTime64(3, 'UTC')} AND event_time < {until:DateTime64(3, 'UTC')}
ORDER BY event_time, verdict_id
LIMIT {limit:UInt32}
