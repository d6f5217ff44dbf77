"""Results of replays in their own tables: written whole or not at all to be found, read back by run."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from schemas.clickhouse.tables import (
    REPLAY_ALERTS,
    REPLAY_FINDINGS,
    REPLAY_RUNS,
    REPLAY_VERDICTS,
    At,
    Judged,
    Table,
)
from schemas.erasures import Erasure, Erasures
from streams.past.run import Run
from streams.store import Store

LIVE = "live"  # the name under which what was said at the time is compared like a run
_NOWHERE = At(0, 0, 0)
_BLOCK = 20_000


class UnknownRun(LookupError):
    """No run has that name, or several begin with it."""


class Results:
    """Takes one run's results; the run is to be found once `close` has written it."""

    def __init__(self, store: Store, run: Run) -> None:
        self._store = store
        self._run = run
        self._waiting: dict[Table, list[Judged]] = {REPLAY_VERDICTS: [], REPLAY_FINDINGS: [], REPLAY_ALERTS: []}
        self._blocks = 0

    async def begin(self) -> None:
        """Remove what an earlier run of the same name has left."""
        for table in (REPLAY_RUNS, *self._waiting):
            await self._store.command(
                f"DELETE FROM {table.name} WHERE run_id = {{run:String}}",  # noqa: S608  a table of ours
                {"run": self._run.run_id},
            )

    async def take(
        self, verdicts: Sequence[Judged] = (), findings: Sequence[Judged] = (), alerts: Sequence[Judged] = ()
    ) -> None:
        """Store results, by and by."""
        given = {REPLAY_VERDICTS: verdicts, REPLAY_FINDINGS: findings, REPLAY_ALERTS: alerts}
        for table, judged in given.items():
            self._waiting[table] += judged
            if len(self._waiting[table]) >= _BLOCK:
                await self._write(table)

    async def close(self) -> None:
        """Store the rest, then the run."""
        for table in self._waiting:
            await self._write(table)
        await self._insert(REPLAY_RUNS, [self._run])

    async def _write(self, table: Table) -> None:
        judged, self._waiting[table] = self._waiting[table], []
        if judged:
            await self._insert(table, judged)

    async def _insert(self, table: Table, subjects: Sequence[Any]) -> None:
        self._blocks += 1
        columns = table.read(subjects, [_NOWHERE] * len(subjects))
        token = f"{self._run.run_id}:{self._run.made_at.timestamp()}:{self._blocks}"
        await self._store.insert(table, columns, token)


async def runs(store: Store) -> list[Run]:
    """All runs, newest first."""
    answer = await store.query("SELECT * FROM replay_runs FINAL ORDER BY made_at DESC")
    return [msgspec.convert(row, Run) for row in answer.records()]


async def find_run(store: Store, name: str) -> Run:
    """The run whose id begins with `name`.

    Raises:
        UnknownRun: there is none, or more than one.
    """
    found = [run for run in await runs(store) if run.run_id.startswith(name)]
    if len(found) != 1:
        raise UnknownRun(
            f"{'no' if not found else 'more than one'} run {name!r}: `pointsman replay --list` has them"
        )
    return found[0]


async def erasures(store: Store) -> Erasures:
    """All tombstones."""
    held = Erasures()
    for row in (await store.query("SELECT tenant_id, principal_hash, until FROM erasures FINAL")).records():
        held.add(msgspec.convert(row, Erasure))
    return held


class Fired(NamedTuple):
    """An identity, and when it first fired in a window."""

    fingerprint: str
    alertname: str
    severity: str
    labels: dict[str, str]
    fired_at: datetime
    findings: int


_OF_RUN = """SELECT fingerprint, alertname, severity, labels, fired_at, count
FROM replay_alerts FINAL WHERE run_id = {run:String}"""
_OF_LIVE = """SELECT a.fingerprint AS fingerprint, any(a.alertname) AS alertname,
    argMax(a.severity, a.sequence) AS severity, any(a.labels) AS labels,
    minIf(a.time, a.status = 'firing') AS fired_at, max(a.count) AS count
FROM alerts AS a FINAL GROUP BY a.fingerprint, a.alert_id"""
_FIRST = """SELECT fingerprint, any(alertname), argMax(severity, fired_at), any(labels),
    min(fired_at) AS first, sum(count)
FROM ({}) WHERE fired_at >= {{begins:DateTime64(3, 'UTC')}} AND fired_at < {{ends:DateTime64(3, 'UTC')}}
GROUP BY fingerprint ORDER BY first, fingerprint"""


async def fired(store: Store, run: str, begins: datetime, ends: datetime) -> list[Fired]:
    """The first firing of each identity in the window, in a run or (`LIVE`) as it was said at the time."""
    sql = _FIRST.format(_OF_LIVE if run == LIVE else _OF_RUN)
    answer = await store.query(sql, {"run": run, "begins": begins, "ends": ends})
    return [Fired(*row) for row in answer.rows]


class Flips(NamedTuple):
    """Requests that one side flags and the other does not, for one detector (empty: by any)."""

    detector: str
    newly: int
    no_longer: int


_FLAGGED_BY_RUN = "SELECT verdict_id, flagged_by FROM replay_verdicts FINAL WHERE run_id = {{{}:String}}"
_FLAGGED_LIVE = """SELECT verdict_id, flagged_by FROM verdicts FINAL
WHERE time >= {begins:DateTime64(3, 'UTC')} AND time < {ends:DateTime64(3, 'UTC')}"""
_FLIPS = """WITH arrayJoin(arrayDistinct(arrayConcat(a.flagged_by, b.flagged_by,
    if(empty(a.flagged_by) != empty(b.flagged_by), [''], [])))) AS detector,
if(detector = '', notEmpty(a.flagged_by), has(a.flagged_by, detector)) AS before,
if(detector = '', notEmpty(b.flagged_by), has(b.flagged_by, detector)) AS after
SELECT detector, countIf(after AND NOT before) AS newly, countIf(before AND NOT after) AS no_longer
FROM ({}) AS a INNER JOIN ({}) AS b USING (verdict_id)
GROUP BY detector HAVING newly + no_longer > 0 ORDER BY detector"""


async def flips(store: Store, a: str, b: str, begins: datetime, ends: datetime) -> list[Flips]:
    """How many requests of both sides are flagged by one and not by the other, in all and by detector."""
    sides = [_FLAGGED_LIVE if run == LIVE else _FLAGGED_BY_RUN.format(name) for run, name in ((a, "a"), (b, "b"))]
    answer = await store.query(_FLIPS.format(*sides), {"a": a, "b": b, "begins": begins, "ends": ends})
    return [Flips(*row) for row in answer.rows]
