"""Rows a second into ClickHouse by the history's own code, and by a bare insert of the same columns."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detectors.judge import Judge, JudgeLimits
from detectors.panel import build_panel
from detectors.processor import Record
from detectors.registry import stream_detectors
from detectors.thresholds import Thresholds
from schemas.clickhouse import migrations
from schemas.codec import InvalidRecord
from schemas.topics import FINDINGS, VERDICTS
from streams.garbage import settled
from streams.history import History
from streams.migrations import migrate
from streams.replay import FileRecord
from streams.store import Store

BATCH = 20_000  # records an insert, about what a second of load brings


class Rates(NamedTuple):
    """Rows a second, each round measured side by side."""

    history: list[float]
    bare: list[float]


def with_effects(records: Sequence[Record]) -> list[Record]:
    """The events and what the detect lane makes of them: all that the history reads."""
    panel = build_panel(Thresholds())
    judge = Judge(panel, stream_detectors(panel.thresholds), JudgeLimits())
    kept = [output for output in judge.apply(records) if output.topic in (VERDICTS.name, FINDINGS.name)]
    now_ms = records[-1].timestamp
    made = [FileRecord(out.topic, number, now_ms, out.value, out.key) for number, out in enumerate(kept)]
    return [*records, *made]


async def rates(records: Sequence[Record], folder: Path, rounds: int) -> Rates:
    """Insert all records, in turns by `History.insert` (decoding and rows in it) and as columns made beforehand."""

    async def refuse(record: Record, error: InvalidRecord) -> None:
        raise RuntimeError(f"a row of the benchmark was refused: {error}")

    cuts = [records[at : at + BATCH] for at in range(0, len(records), BATCH)]
    found = Rates([], [])
    async with Store(path=folder) as store:
        await migrate(store, migrations.load())
        history = History(store, refuse)
        blocks = [block for cut in cuts for block in history.blocks(cut)[0]]
        ready = [(block.table, block.columns) for block in blocks]
        rows = sum(len(block.records) for block in blocks)
        await history.insert(records[:1_000])  # the engine's first insert takes seconds
        with settled():
            for number in range(rounds):
                moved = [_moved(cut, number) for cut in cuts]
                began = time.perf_counter()
                for cut in moved:
                    await history.insert(cut)
                between = time.perf_counter()
                for place, (table, columns) in enumerate(ready):
                    await store.insert(table, columns, f"bare-{number}-{place}")
                ended = time.perf_counter()
                found.history.append(rows / (between - began))
                found.bare.append(rows / (ended - between))
    return found


def _moved(records: Sequence[Record], number: int) -> list[Record]:
    """The same records at other offsets: a repeated block would be dropped by its token."""
    return [
        FileRecord(r.topic, r.offset + number * 10**9, r.timestamp, r.value, r.key, tuple(r.headers))
        for r in records
    ]
