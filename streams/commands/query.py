"""`pointsman query`: run one of the named forensic queries."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from clickhouse_connect.driver.exceptions import ClickHouseError

from schemas.clickhouse import named
from streams.commands.config import config_option, load_settings
from streams.embedded.clickhouse import EngineTaken
from streams.settings import ClickHouse
from streams.store import Answer, Store

_NO_TABLES = (60, 81)  # UNKNOWN_TABLE, UNKNOWN_DATABASE


@click.command()
@click.argument("name", required=False)
@click.option("--param", "params", multiple=True, metavar="KEY=VALUE", help="A parameter; may be repeated.")
@click.option("--list", "listing", is_flag=True, help="List the queries with their parameters.")
@click.option("--markdown", is_flag=True, help="Print the page docs/queries.md.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@config_option
def command(
    name: str | None, params: tuple[str, ...], listing: bool, markdown: bool, as_json: bool, path: Path | None
) -> None:
    """Run the named query NAME over the history."""
    if markdown:
        click.echo(named.markdown(), nl=False)
        return
    if listing:
        _list(as_json)
        return
    if name not in named.load():
        raise click.UsageError(f"no query {name!r}; `pointsman query --list` has them" if name else "give a NAME")
    query = named.load()[name]
    try:
        values = query.bind(dict(_pair(param) for param in params), datetime.now(UTC))
        answer = asyncio.run(_run(load_settings(path).clickhouse, query.sql, values))
    except named.BadParameter as error:
        raise click.UsageError(str(error)) from error
    except (ClickHouseError, EngineTaken) as error:
        hint = "; no tables yet? `pointsman migrate`" if getattr(error, "code", None) in _NO_TABLES else ""
        raise click.ClickException(inert(str(error)) + hint) from error
    if as_json:
        click.echo(
            json.dumps({"query": name, "rows": answer.records(), "read_rows": answer.read_rows}, default=_text)
        )
    else:
        _table(answer)


def _list(as_json: bool) -> None:
    queries = named.load().values()
    if as_json:
        shown = [{**q._asdict(), "parameters": [p._asdict() for p in q.parameters]} for q in queries]
        click.echo(json.dumps(shown, indent=2))
        return
    for query in queries:
        click.echo(f"{query.name}\n    {query.summary}")
        for name, kind, default, meaning in query.parameters:
            click.echo(f"    --param {name}={'...' if default is None else default or repr('')}  {kind}: {meaning}")


def _pair(param: str) -> tuple[str, str]:
    key, equals, value = param.partition("=")
    if not equals:
        raise click.UsageError(f"--param {param!r} is not KEY=VALUE")
    return key, value


async def _run(settings: ClickHouse, sql: str, values: dict[str, Any]) -> Answer:
    async with Store.of(settings) as store:
        return await store.query(sql, values)


def _table(answer: Answer) -> None:
    """Columns two spaces apart."""
    if not answer.rows:
        click.echo("no rows")
        return
    cells = [list(answer.columns), *([inert(_text(value)) for value in row] for row in answer.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(answer.columns))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def inert(text: str) -> str:
    r"""For a terminal: control, format and line characters as escapes, so that no field of an event acts on it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    return str(value)
