-- Requests whose prompts are nearly the one of a given request, nearest first: edits of it, or a climb towards it.
-- param request String: the request's id
-- param since DateTime64(3, 'UTC') = -24h: from this event time on
-- param until DateTime64(3, 'UTC') = now: and before this one
-- param bits UInt32 = 12: of 64 bits of likeness that may differ (0: the same up to punctuation)
-- param limit UInt32 = 100: rows at most
-- bound: `verdicts` of the range, of which only the likeness column is read for all.

WITH
    ifNull(
        (
            SELECT any(likeness) FROM verdicts FINAL
            WHERE request_id = {request:String} AND likeness != 0
        ),
        0
    ) AS wanted
SELECT
    bitHammingDistance(likeness, wanted) AS differing_bits,
    event_time,
    request_id,
    tenant_id,
    principal_hash,
    decision,
    selected_model,
    has_difficulty_score,
    difficulty_score
FROM verdicts FINAL
WHERE likeness != 0
    AND wanted != 0
    AND bitHammingDistance(likeness, wanted) <= {bits:UInt32}
    AND request_id != {request:String}
    AND event_time >= {since:DateTime64(3, 'UTC')} AND event_time < {until:DateTime64(3, 'UTC')}
ORDER BY differing_bits, event_time, request_id
LIMIT {limit:UInt32}
