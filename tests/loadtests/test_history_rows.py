"""The large history, small: rows are made, every query runs, and none that is about one key reads it whole."""

from pathlib import Path

from loadtests.history_rows import FLAGGED, run
from schemas.clickhouse import named

ROWS = 200_000  # 25 granules a table
OF_ONE_KEY = ("blast_radius", "first_use", "timeline_of_principal", "verdicts_by_principal")


async def test_every_query_on_a_made_up_history(tmp_path: Path) -> None:
    counts, runs = await run(ROWS, tmp_path)
    assert counts == dict.fromkeys(("requests", "routes", "outcomes", "verdicts"), ROWS) | dict.fromkeys(
        ("reasons", "findings"), ROWS // FLAGGED
    )
    assert {figures.name for figures in runs} == set(named.load())
    for figures in runs:
        if figures.name in OF_ONE_KEY:
            assert figures.read_rows < ROWS, figures
    assert any(figures.rows for figures in runs)
