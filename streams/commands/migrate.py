"""`pointsman migrate`: bring the history's tables to a version."""

import asyncio
import json
from pathlib import Path

import click
from clickhouse_connect.driver.exceptions import ClickHouseError

from schemas.clickhouse import migrations
from streams.commands.config import config_option, load_settings
from streams.embedded.clickhouse import EngineTaken
from streams.migrations import MigrationError, Step, migrate, plan
from streams.settings import ClickHouse
from streams.store import Store


@click.command()
@config_option
@click.option("--to", type=click.IntRange(min=0), help="Version to go to, up or down; 0: no tables. Default: last.")
@click.option("--dry-run", is_flag=True, help="Print the statements, change nothing.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(path: Path | None, to: int | None, dry_run: bool, as_json: bool) -> None:
    """Create or change the tables of the history in ClickHouse, or (`--to`) take changes back.

    Going down drops tables with what is in them.
    """
    settings = load_settings(path).clickhouse
    try:
        steps = asyncio.run(_steps(settings, to, dry_run))
    except (ClickHouseError, EngineTaken, MigrationError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        shown = [
            {"version": m.version, "name": m.name, "direction": step.direction, "statements": list(step.statements)}
            for step in steps
            for m in [step.migration]
        ]
        click.echo(json.dumps({"dry_run": dry_run, "steps": shown}, indent=2))
        return
    for step in steps:
        click.echo(f"{step.direction:<4} {step.migration.version:04d} {step.migration.name}")
        if dry_run:
            click.echo("".join(f"\n{statement};\n" for statement in step.statements))
    if not steps:
        click.echo("nothing to do")


async def _steps(settings: ClickHouse, to: int | None, dry_run: bool) -> list[Step]:
    async with Store.of(settings) as store:
        return await (plan if dry_run else migrate)(store, migrations.load(), to)
