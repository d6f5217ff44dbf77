-- Every change of a threshold: what it was, what it is, who did it, who approved it, why, on which evidence.
-- param parameter String = "": one parameter, as novelty.flag; empty: all
-- param limit UInt32 = 1000: rows at most, the latest first
-- bound: all of `thresholds`, which has a row a change.

SELECT
    time,
    version,
    parameter,
    detector,
    router_name,
    route,
    category,
    tenant_id,
    has_old_value,
    old_value,
    new_value,
    direction,
    mode,
    cause,
    actor,
    approver,
    reason,
    n_trusted,
    n_principals,
    e_value,
    risk_ucb,
    has_expires_at,
    expires_at
FROM thresholds FINAL
WHERE {parameter:String} = '' OR parameter = {parameter:String}
ORDER BY time DESC, version DESC, parameter, update_id
LIMIT {limit:UInt32}
