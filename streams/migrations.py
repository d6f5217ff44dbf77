"""Brings the tables of the history to a version, up or down, and remembers what ran with its checksum."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from clickhouse_connect.driver.exceptions import DatabaseError

from schemas.clickhouse.migrations import Migration
from streams.store import Store

_CREATE_LOG = """CREATE TABLE IF NOT EXISTS migrations
(
    entry UInt32,
    version UInt32,
    name String,
    checksum String,
    applied Bool,
    at DateTime64(3, 'UTC')
)
ENGINE = MergeTree
ORDER BY (version, entry)"""
_LOG = """INSERT INTO migrations SELECT
{entry:UInt32}, {version:UInt32}, {name:String}, {checksum:String}, {applied:Bool}, now64(3, 'UTC')"""
_UNKNOWN_DATABASE = 81
_STATE = """SELECT version, argMax(name, entry), argMax(checksum, entry) FROM migrations
GROUP BY version HAVING argMax(applied, entry) ORDER BY version"""


class MigrationError(RuntimeError):
    """The database does not come from these files: an applied one was edited, or is missing here."""


class Step(NamedTuple):
    """One migration to run, one way."""

    migration: Migration
    direction: Literal["up", "down"]

    @property
    def statements(self) -> tuple[str, ...]:
        """What to run."""
        return self.migration.up if self.direction == "up" else self.migration.down


async def plan(store: Store, migrations: Sequence[Migration], to: int | None = None) -> list[Step]:
    """Steps from the database's version to `to` (None: the last migration). Changes nothing.

    Raises:
        MigrationError: an applied migration is not as its file is, or has none.
        ValueError: there is no version `to`.
    """
    to = len(migrations) if to is None else to
    if not 0 <= to <= len(migrations):
        raise ValueError(f"no version {to}: there are 0 to {len(migrations)}")
    applied = await _applied(store)
    by_version = {migration.version: migration for migration in migrations}
    for version, (name, checksum) in applied.items():
        if version not in by_version:
            raise MigrationError(f"migration {version} ({name}) is applied, but has no file here")
        if by_version[version].checksum != checksum:
            raise MigrationError(f"migration {version} ({name}) was edited after it was applied: add a new one")
    down = [Step(by_version[version], "down") for version in sorted(applied, reverse=True) if version > to]
    up = [Step(m, "up") for m in migrations if m.version <= to and m.version not in applied]
    return down + up


async def migrate(store: Store, migrations: Sequence[Migration], to: int | None = None) -> list[Step]:
    """Run what `plan` says, and return it. A step that breaks off can be run again.

    Raises:
        MigrationError, ValueError: as `plan`.
    """
    await store.create_database()
    await store.command(_CREATE_LOG)
    steps = await plan(store, migrations, to)
    entries: Any = (await store.query("SELECT max(entry) FROM migrations")).rows[0][0]
    for entry, step in enumerate(steps, start=entries + 1):
        for statement in step.statements:
            await store.command(statement)
        version, name, checksum, *_ = step.migration
        entry_of = {"entry": entry, "version": version, "name": name, "checksum": checksum}
        await store.command(_LOG, {**entry_of, "applied": step.direction == "up"})
    return steps


async def _applied(store: Store) -> dict[int, tuple[str, str]]:
    """Name and checksum by version."""
    try:
        exists = await store.query("EXISTS TABLE migrations")
        if not exists.rows[0][0]:
            return {}
        return {version: (name, checksum) for version, name, checksum in (await store.query(_STATE)).rows}
    except DatabaseError as error:
        if error.code == _UNKNOWN_DATABASE:
            return {}
        raise
