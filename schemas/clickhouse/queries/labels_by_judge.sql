-- What judges answered, by judge, threshold and day: how many, how many unsafe, and answers to one ticket twice.
-- param since DateTime64(3, 'UTC') = -7d: from this time of the label on
-- param until DateTime64(3, 'UTC') = now: and before this one
-- bound: partitions (months) of `audits` in the range.

SELECT
    toDate(labelled_at) AS day,
    judge,
    parameter,
    count() AS labels,
    countIf(label = 'unsafe') AS unsafe,
    countIf(label = 'unknown') AS unknown,
    count() - uniqExact(ticket_id) AS answered_twice,
    uniqExact(tenant_id) AS tenants,
    uniqExact(principal_hash) AS principals
FROM audits FINAL
WHERE labelled_at >= {since:DateTime64(3, 'UTC')} AND labelled_at < {until:DateTime64(3, 'UTC')}
GROUP BY day, judge, parameter
ORDER BY day, judge, parameter
