from pathlib import Path

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from schemas.clickhouse import migrations, tables
from streams.migrations import MigrationError, migrate, plan
from streams.store import Store

FILES = migrations.load()
VERSIONS = [migration.version for migration in FILES]


async def names(store: Store) -> set[str]:
    return {name for (name,) in (await store.query("SHOW TABLES")).rows} - {"migrations"}


async def test_up_down_up(empty: Store) -> None:
    assert [step.migration.version for step in await migrate(empty, FILES)] == VERSIONS
    everything = await names(empty)
    assert {table.name for table in tables.ALL} < everything
    assert await migrate(empty, FILES) == []

    down = await migrate(empty, FILES, to=1)
    assert [(step.migration.version, step.direction) for step in down] == [
        (version, "down") for version in reversed(VERSIONS[1:])
    ]
    assert await names(empty) == {"requests", "routes", "outcomes"}
    await migrate(empty, FILES, to=0)
    assert await names(empty) == set()

    assert len(await migrate(empty, FILES)) == len(FILES)
    assert await names(empty) == everything


async def test_a_plan_changes_nothing(empty: Store) -> None:
    """Not even where the database is not there yet."""
    assert len(await plan(empty, FILES)) == len(FILES)
    await migrate(empty, FILES, to=2)
    assert [step.migration.version for step in await plan(empty, FILES)] == VERSIONS[2:]
    assert "thresholds" not in await names(empty)


async def test_an_edited_migration_is_refused(empty: Store) -> None:
    await migrate(empty, FILES)
    edited = [FILES[0]._replace(checksum="other"), *FILES[1:]]
    with pytest.raises(MigrationError, match=r"migration 1 \(events\) was edited"):
        await migrate(empty, edited)
    with pytest.raises(
        MigrationError, match=rf"migration {VERSIONS[-1]} \({FILES[-1].name}\) is applied, but has no file"
    ):
        await plan(empty, FILES[:-1])


async def test_a_migration_that_broke_off_runs_again(empty: Store) -> None:
    await migrate(empty, FILES, to=1)
    broken = FILES[1]._replace(up=(*FILES[1].up[:2], "CREATE TABLE nonsense"))
    with pytest.raises(DatabaseError, match="CREATE query"):
        await migrate(empty, [FILES[0], broken, *FILES[2:]])
    assert "reasons" in await names(empty)
    assert len(await migrate(empty, FILES)) == len(FILES) - 1


async def test_an_unknown_version_is_refused(empty: Store) -> None:
    with pytest.raises(ValueError, match="no version 99"):
        await plan(empty, FILES, to=99)


async def test_tables_have_the_columns_that_are_inserted(store: Store) -> None:
    """Names and types, none of them Nullable."""
    for table in (*tables.ALL, *tables.REPLAYS):
        described = (await store.query(f"DESCRIBE TABLE {table.name}")).rows
        assert {row[0]: row[1] for row in described} == dict(zip(table.columns, table.types, strict=True))


def test_statements_bear_being_run_again() -> None:
    for migration in FILES:
        for statement in migration.up:
            assert " IF NOT EXISTS " in statement or " IF EXISTS " in statement, statement
        for statement in migration.down:
            assert " IF EXISTS " in statement or " IF NOT EXISTS " in statement, statement


@pytest.mark.parametrize(
    ("name", "text"),
    [("0001_a.sql", "-- up\nSELECT 1;\n"), ("1_a.sql", "-- up\n-- down\n"), ("0002_a.sql", "-- up\n-- down\n")],
)
def test_a_file_that_is_no_migration_is_an_error(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=str(tmp_path)):
        migrations.load(tmp_path)
