-- What differs between two windows of time, route by route: share of the traffic, flags, difficulty, cost.
-- param before_since DateTime64(3, 'UTC') = -48h: the first window begins
-- param before_until DateTime64(3, 'UTC') = -24h: and ends
-- param since DateTime64(3, 'UTC') = -24h: from this event time on
-- param until DateTime64(3, 'UTC') = now: and before this one
-- bound: `verdicts` from the earlier beginning to the later end of both windows.

SELECT
    router_name,
    router_version,
    selected_model,
    countIf(earlier) AS requests_before,
    countIf(later) AS requests_after,
    requests_before / greatest(1, sum(requests_before) OVER ()) AS traffic_share_before,
    requests_after / greatest(1, sum(requests_after) OVER ()) AS traffic_share_after,
    countIf(earlier AND decision = 'flagged') / greatest(1, requests_before) AS flagged_share_before,
    countIf(later AND decision = 'flagged') / greatest(1, requests_after) AS flagged_share_after,
    countIf(earlier AND decision = 'unjudged') AS unjudged_before,
    countIf(later AND decision = 'unjudged') AS unjudged_after,
    ifNotFinite(avgIf(difficulty_score, earlier AND has_difficulty_score), 0) AS difficulty_before,
    ifNotFinite(avgIf(difficulty_score, later AND has_difficulty_score), 0) AS difficulty_after,
    sumIf(cost_estimate_usd, earlier) AS estimated_usd_before,
    sumIf(cost_estimate_usd, later) AS estimated_usd_after
FROM
(
    SELECT
        *,
        event_time >= {before_since:DateTime64(3, 'UTC')} AND event_time < {before_until:DateTime64(3, 'UTC')}
            AS earlier,
        event_time >= {since:DateTime64(3, 'UTC')} AND event_time < {until:DateTime64(3, 'UTC')} AS later
    FROM verdicts FINAL
    WHERE event_time >= least({before_since:DateTime64(3, 'UTC')}, {since:DateTime64(3, 'UTC')})
        AND event_time < greatest({before_until:DateTime64(3, 'UTC')}, {until:DateTime64(3, 'UTC')})
)
WHERE earlier OR later
GROUP BY router_name, router_version, selected_model
ORDER BY abs(traffic_share_after - traffic_share_before) DESC, router_name, router_version, selected_model
