-- Of the labelled answers of each route and category: the unsafe share, with its Wilson interval at 95 %.
-- param since DateTime64(3, 'UTC') = -24h: from this event time on
-- param until DateTime64(3, 'UTC') = now: and before this one
-- param min_labelled UInt32 = 1: labelled answers that a row must have
-- bound: `routes` and `outcomes` of the range (outcomes one hour longer: they come later).

SELECT
    router_name,
    selected_model,
    tier,
    category,
    count() AS labelled,
    countIf(label = 'unsafe') AS unsafe,
    unsafe / labelled AS unsafe_share,
    (unsafe_share + 1.92 / labelled - 1.96 * sqrt((unsafe_share * (1 - unsafe_share) + 0.96 / labelled) / labelled))
        / (1 + 3.84 / labelled) AS unsafe_low,
    (unsafe_share + 1.92 / labelled + 1.96 * sqrt((unsafe_share * (1 - unsafe_share) + 0.96 / labelled) / labelled))
        / (1 + 3.84 / labelled) AS unsafe_high
FROM
(
    SELECT tenant_id, request_id, any(evaluation_score_label) AS label
    FROM outcomes FINAL
    WHERE evaluation_score_label IN ('safe', 'unsafe', 'refused')
        AND event_time >= {since:DateTime64(3, 'UTC')}
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
        argMax(taken.tier, (taken.attempt, taken.event_time)) AS tier,
        argMax(taken.category, (taken.attempt, taken.event_time)) AS category
    FROM routes AS taken FINAL
    WHERE event_time >= {since:DateTime64(3, 'UTC')} AND event_time < {until:DateTime64(3, 'UTC')}
    GROUP BY tenant_id, request_id
) AS routed USING (tenant_id, request_id)
GROUP BY router_name, selected_model, tier, category
HAVING labelled >= {min_labelled:UInt32}
ORDER BY unsafe_low DESC, router_name, selected_model, tier, category
