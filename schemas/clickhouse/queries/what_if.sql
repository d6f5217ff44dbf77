-- What a detector would have flagged at another threshold, over history: by tenant, against what it did flag.
-- param detector String: as in `scores` of verdicts: triggers, novelty, spend, ...
-- param threshold Float64: flag scores above this
-- param since DateTime64(3, 'UTC') = -24h: from this event time on
-- param until DateTime64(3, 'UTC') = now: and before this one
-- bound: `verdicts` of the range.

SELECT
    tenant_id,
    count() AS judged,
    countIf(scores[{detector:String}] > {threshold:Float64}) AS would_flag,
    countIf(has(flagged_by, {detector:String})) AS flagged,
    countIf(scores[{detector:String}] > {threshold:Float64} AND NOT has(flagged_by, {detector:String})) AS added,
    countIf(has(flagged_by, {detector:String}) AND scores[{detector:String}] <= {threshold:Float64}) AS lost,
    uniqExactIf(principal_hash, scores[{detector:String}] > {threshold:Float64}) AS would_flag_principals
FROM verdicts FINAL
WHERE mapContains(scores, {detector:String})
    AND event_time >= {since:DateTime64(3, 'UTC')} AND event_time < {until:DateTime64(3, 'UTC')}
GROUP BY tenant_id
ORDER BY would_flag DESC, tenant_id
