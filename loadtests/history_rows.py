"""The named queries on a large history: `python -m loadtests.history_rows` prints the table of docs/history.md.

The engine itself makes the rows: a month of a fleet's requests with their routes, outcomes, verdicts, reasons and
findings, in the product's own tables. Each query then runs with its default range, the month's last day.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import click

from schemas.clickhouse import migrations, named
from streams.embedded.clickhouse import ClickHouseServer
from streams.migrations import migrate
from streams.store import Store

DAYS = 30
CHUNK = 1_000_000
FLAGGED = 500  # one request in so many has a reason and a finding
ROUNDS = 3

_MODEL = "['small-8b', 'mixtral-8x7b', 'gpt-4-class', 'reasoner-xl'][1 + cityHash64(number, 2) % 4]"
_RANK = "cityHash64(number, 2) % 4"
# Column: expression over `number`, the request's place from the newest backwards.
_COMMON = {
    "request_id": "toString(number)",
    "event_time": "{end:DateTime64(3, 'UTC')} - toIntervalMillisecond(toUInt64(number * {step_ms:Float64}))",
    "time": "event_time",
    "tenant_id": "concat('t', toString(cityHash64(number, 1) % 10000 % 200))",
    "principal_hash": "concat('p', toString(cityHash64(number, 1) % 10000))",
    "log_offset": "number",
}
_TABLES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "requests": {
            "event_id": "concat(request_id, '/request')",
            "request_stream": "number % 3 = 0",
            "conversation_id": "concat('c', toString(intDiv(number, 4)))",
            "prompt_chars": "100 + cityHash64(number, 6) % 5000",
        },
        "routes": {
            "event_id": "concat(request_id, '/route')",
            "router_name": "'main'",
            "selected_model": _MODEL,
            "category": "['code', 'math', 'chat'][1 + number % 3]",
            "has_tier_rank": "true",
            "tier_rank": _RANK,
            "cache_hit": "number % 50 = 0",
        },
        "outcomes": {
            "event_id": "concat(request_id, '/outcome')",
            "response_model": _MODEL,
            "has_cost_usd": "true",
            "cost_usd": f"({_RANK}) / 100",
            "evaluation_score_label": "if(number % 10 = 0, if(number % 1000 = 0, 'unsafe', 'safe'), '')",
            "guardrail_verdict": "if(number % 100 = 7, '', 'allow')",
        },
        "verdicts": {
            "verdict_id": "concat(request_id, '/v')",
            "event_id": "concat(request_id, '/request')",
            "decision": f"if(number % {FLAGGED} = 0, 'flagged', 'clean')",
            "flagged_by": f"if(number % {FLAGGED} = 0, ['novelty'], [])",
            "router_name": "'main'",
            "selected_model": _MODEL,
            "scores": "map('novelty', (cityHash64(number, 3) % 1000) / 1000, 'triggers', 0.0)",
            "likeness": "cityHash64(intDiv(number, 2))",
            "has_tier_rank": "true",
            "tier_rank": _RANK,
        },
        "reasons": {
            "verdict_id": "concat(request_id, '/v')",
            "flagged": "true",
            "detector": "'novelty'",
            "kind": "'novel_text'",
            "direction": "'up'",
            "window": "concat('w', toString(cityHash64(number, 4) % 5000))",
            "trigger_id": "concat('g', toString(cityHash64(number, 5) % 500))",
        },
        "findings": {
            "finding_id": "concat(request_id, '/f')",
            "kind": "'novel_text'",
            "severity": "'warning'",
        },
    }
)
_OF_FLAGGED = ("reasons", "findings")
# What the queries are asked about, where they need to be asked.
_ASKED: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "blast_radius": {"trigger": "g7"},
        "first_use": {"window": "w7"},
        "near_duplicates": {"request": "42"},
        "timeline_of_principal": {"principal": "p7"},
        "verdicts_by_principal": {"principal": "p7"},
        "what_if": {"detector": "novelty", "threshold": "0.99"},
    }
)


class Run(NamedTuple):
    """One query's figures; `share`: of all rows of the tables that it names."""

    name: str
    rows: int
    seconds: float
    read_rows: int
    share: float


async def fill(store: Store, rows: int, end: datetime) -> dict[str, int]:
    """Fill the tables with `rows` requests of the month before `end`; how many rows each table has then."""
    await migrate(store, migrations.load())
    values = {"end": end.strftime("%Y-%m-%d %H:%M:%S"), "step_ms": DAYS * 86_400_000 / rows}
    for table, own in _TABLES.items():
        columns = {**_COMMON, **own}
        made = ", ".join(f"{expression} AS `{name}`" for name, expression in columns.items())
        where = f"WHERE number % {FLAGGED} = 0" if table in _OF_FLAGGED else ""
        for first in range(0, rows, CHUNK):
            source = f"numbers({first}, {min(CHUNK, rows - first)})"
            names = ", ".join(f"`{name}`" for name in columns)
            insert = f"INSERT INTO {table} ({names}) SELECT {made} FROM {source} {where}"  # noqa: S608 - our own names
            await store.command(insert, values)
    counts = {}
    for table in _TABLES:
        counts[table] = int((await store.query(f"SELECT count() FROM {table}")).rows[0][0])  # noqa: S608 - our own
    return counts


async def measure(store: Store, counts: Mapping[str, int], now: datetime) -> list[Run]:
    """Run every named query a few times."""
    runs = []
    for name, query in named.load().items():
        values = query.bind(_ASKED.get(name, {}), now)
        times = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            answer = await store.query(query.sql, values)
            times.append(time.perf_counter() - began)
        whole = sum(rows for table, rows in counts.items() if f" {table} " in query.sql)
        share = answer.read_rows / whole if whole else 0.0
        runs.append(Run(name, len(answer.rows), statistics.median(times), answer.read_rows, share))
    return runs


async def run(rows: int, folder: Path) -> tuple[dict[str, int], list[Run]]:
    """Make the history in `folder`, and ask it."""
    now = datetime.now(UTC)
    # Behind its wire protocol: in process, the engine does not say what it read.
    with ClickHouseServer(folder / "clickhouse") as engine:
        async with Store(engine.dsn, timeout=600.0) as store:
            counts = await fill(store, rows, now)
            return counts, await measure(store, counts, now)


@click.command()
@click.option(
    "--rows", default=10_000_000, show_default=True, help="Requests, each with its route, outcome, verdict."
)
def main(rows: int) -> None:
    """Print the table of docs/history.md."""
    with tempfile.TemporaryDirectory() as folder:
        counts, runs = asyncio.run(run(rows, Path(folder)))
    click.echo(", ".join(f"{table} {count:,}" for table, count in counts.items()) + "\n")
    click.echo("| query | rows given | seconds | rows read | of its tables |\n|---|---|---|---|---|")
    for name, given, seconds, read, share in runs:
        click.echo(f"| `{name}` | {given:,} | {seconds:.2f} | {read:,} | {share:.1%} |")


if __name__ == "__main__":
    main()
