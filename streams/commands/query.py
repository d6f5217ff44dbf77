"""`pointsman query`: run one of the named forensic queries."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from schemas.clickhouse import named
from streams.commands.config import config_option, load_settings
from streams.commands.stores import on_store
from streams.notifiers.text import printable, timestamp
from streams.store import Answer


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
        answer = on_store(load_settings(path).clickhouse, lambda store: store.query(query.sql, values))
    except named.BadParameter as error:
        raise click.UsageError(str(error)) from error
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


def _table(answer: Answer) -> None:
    """Columns two spaces apart."""
    if not answer.rows:
        click.echo("no rows")
        return
    cells = [list(answer.columns), *([printable(_cell(value)) for value in row] for row in answer.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(answer.columns))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    """For people: of a fraction as many digits as tell anything; `--json` has all of them."""
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    return f"{value:.6g}" if isinstance(value, float) else _text(value)


def _text(value: Any) -> str:
    return timestamp(value) if isinstance(value, datetime) else str(value)
