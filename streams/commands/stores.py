"""What the commands that talk to the history share."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click
from clickhouse_connect.driver.exceptions import ClickHouseError

from streams.embedded.clickhouse import EngineTaken
from streams.notifiers.text import printable
from streams.settings import ClickHouse
from streams.store import Store

T = TypeVar("T")
_NO_TABLES = (60, 81)  # UNKNOWN_TABLE, UNKNOWN_DATABASE


def on_store(settings: ClickHouse, work: Callable[[Store], Awaitable[T]]) -> T:
    """Run `work` on the settings' history; what it cannot do ends the command with its message."""
    if not settings.dsn and not Path(settings.path).exists():  # to open it would make it
        raise click.ClickException(
            f"no history: POINTSMAN_CLICKHOUSE_DSN is not set, and there is no folder {settings.path} of the"
            " embedded engine (`pointsman migrate` makes it)"
        )

    async def run() -> T:
        async with Store.of(settings) as store:
            return await work(store)

    try:
        return asyncio.run(run())
    except (ClickHouseError, EngineTaken) as error:
        hint = "; no tables yet? `pointsman migrate`" if getattr(error, "code", None) in _NO_TABLES else ""
        raise click.ClickException(printable(str(error)) + hint) from error
