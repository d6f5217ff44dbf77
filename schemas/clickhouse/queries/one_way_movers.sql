-- Principals whose conversations change tier in one direction only, with the strongest evidence of steering.
-- param since DateTime64(3, 'UTC') = -24h: from this event time on
-- param until DateTime64(3, 'UTC') = now: and before this one
-- param min_moves UInt32 = 5: changes of tier that a principal must have
-- param limit UInt32 = 100: rows at most
-- bound: `requests` and `verdicts` of the range.

SELECT
    tenant_id,
    principal_hash,
    countIf(moved > 0) AS moves_up,
    countIf(moved < 0) AS moves_down,
    uniqExactIf(conversation_id, moved != 0) AS conversations,
    max(evidence) AS steering_evidence,
    minIf(event_time, moved != 0) AS first_move
FROM
(
    SELECT
        tenant_id,
        principal_hash,
        conversation_id,
        event_time,
        scores['steering'] AS evidence,
        if(
            row_number() OVER turns = 1,
            0,
            toInt32(tier_rank) - toInt32(lagInFrame(tier_rank) OVER turns)
        ) AS moved
    FROM
    (
        SELECT event_id, tenant_id, principal_hash, event_time, tier_rank, scores
        FROM verdicts FINAL
        WHERE has_tier_rank AND NOT cache_hit AND fallback_from = ''
            AND event_time >= {since:DateTime64(3, 'UTC')} AND event_time < {until:DateTime64(3, 'UTC')}
    ) AS judged
    INNER JOIN
    (
        SELECT event_id, conversation_id
        FROM requests FINAL
        WHERE conversation_id != ''
            AND event_time >= {since:DateTime64(3, 'UTC')} AND event_time < {until:DateTime64(3, 'UTC')}
    ) AS asked USING event_id
    WINDOW turns AS (PARTITION BY tenant_id, principal_hash, conversation_id ORDER BY event_time, event_id)
)
GROUP BY tenant_id, principal_hash
HAVING (moves_up = 0 OR moves_down = 0) AND moves_up + moves_down >= {min_moves:UInt32}
ORDER BY moves_up + moves_down DESC, tenant_id, principal_hash
LIMIT {limit:UInt32}
