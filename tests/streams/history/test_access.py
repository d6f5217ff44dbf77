"""deploy/clickhouse/access.sql, in force: what each role may read and do, on the real engine with planted rows.

The embedded engine has nowhere to put roles made by SQL (514: no writeable access storage; EXECUTE AS is off, 344),
and its sessions are always of the user `default`. But it reads a server's `users.xml`, in which grants are the same
SQL, row policies are their expressions, and quotas are their limits. So each test says in that file, from the
statements of access.sql, what the role at hand has, gives it to `default`, and is that user: a tenant of that name.
What is left untried is that a server carries the statements out (here they are parsed only), and `KEYED BY`.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from schemas.clickhouse import migrations, tables
from streams.embedded.clickhouse import ClickHouseServer
from streams.erasure import count, erasure_of, remove
from streams.history import History
from streams.migrations import migrate
from streams.past.results import Results, runs
from streams.past.run import Run
from streams.store import Store
from tests.streams.history.planted import START, campaign
from tests.streams.history.test_queries import never

ACCESS = Path(__file__).parents[3] / "deploy" / "clickhouse" / "access.sql"
DATABASE = "history"  # `default` is an overlay over the file system in the embedded engine, and reads need FILE
TENANT, OTHER = "default", "t1"  # the session's user; whose the planted rows are
ACCESS_DENIED, QUOTA_EXCEEDED = 497, 201


def statements() -> list[str]:
    text = "\n".join(line for line in ACCESS.read_text().splitlines() if not line.startswith("--"))
    return [" ".join(statement.split()) for statement in text.split(";") if statement.strip()]


class Role(NamedTuple):
    """What access.sql gives to one role."""

    grants: list[str]  # privileges ON an object of the database
    rows: dict[str, str]  # table -> which rows it shows
    limits: dict[str, str]  # of an hour


def role(name: str) -> Role:
    found = Role([], {}, {})
    for statement in statements():
        what, _, to = statement.rpartition(" TO ")
        if name not in to.split(", "):
            continue
        if grant := re.fullmatch(r"GRANT (.+) ON (\S+)", what):
            found.grants.append(f"GRANT {grant[1]} ON {DATABASE}.{grant[2]}")
        elif policy := re.fullmatch(r"CREATE ROW POLICY IF NOT EXISTS \w+ ON (.+) USING (.+)", what):
            found.rows.update(dict.fromkeys(policy[1].split(", "), policy[2]))
        elif quota := re.fullmatch(r"CREATE QUOTA .+ FOR INTERVAL 1 hour MAX (.+)", what):
            found.limits.update(re.findall(r"(\w+) = (\d+)", quota[1]))
        else:
            raise AssertionError(f"the test does not know how to carry out: {statement}")
    return found


def users(name: str, **limits: str) -> str:
    """A `users.xml` in which `default` has this role. (`SHOW DATABASES`: the test's server says `USE default`.)"""
    has = role(name)
    grants = "".join(f"<query>{escape(grant)}</query>" for grant in has.grants)
    rows = "".join(f"<{table}><filter>{escape(which)}</filter></{table}>" for table, which in has.rows.items())
    most = "".join(f"<{what}>{limit}</{what}>" for what, limit in {**has.limits, **limits}.items())
    return f"""<clickhouse>
  <profiles><default/></profiles>
  <quotas><default><interval><duration>3600</duration>{most}</interval></default></quotas>
  <roles><{name}><grants>{grants}</grants></{name}></roles>
  <users><default>
    <password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
    <grants><query>GRANT SHOW DATABASES ON default.*</query><query>GRANT {name}</query></grants>
    <databases><{DATABASE}>{rows}</{DATABASE}></databases>
  </default></users>
</clickhouse>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one history, made and filled by the service: the campaign twice, by a tenant each."""
    folder = tmp_path_factory.mktemp("access")
    asyncio.run(fill(folder))
    return folder


@asynccontextmanager
async def acting(name: str, folder: Path, **limits: str) -> AsyncIterator[Store]:
    """The history as a user with this role finds it; with other limits than its own where some are given."""
    (folder / "users.xml").write_text(users(name, **limits))
    config = folder / "config.xml"
    config.write_text(f"<clickhouse><users_config>{folder}/users.xml</users_config></clickhouse>")
    with ClickHouseServer(f"{folder}/engine?config-file={config}") as server:
        async with Store(server.dsn, database=DATABASE) as store:
            yield store


async def fill(folder: Path) -> None:
    async with acting("pointsman_service", folder) as store:
        await migrate(store, migrations.load())
        history = History(store, never)
        await history.insert(campaign())
        await history.insert(
            [
                replace(record, value=(record.value or b"").replace(b'"t1"', b'"default"'), offset=number)
                for number, record in enumerate(campaign(), start=1_000)
            ]
        )


async def tenants(store: Store, table: str) -> set[str]:
    answer = await store.query(f"SELECT DISTINCT tenant_id FROM {table} FINAL")
    return {tenant for (tenant,) in answer.rows}


async def code_of(statement: str, store: Store) -> int | None:
    """ClickHouse's code of the error; None when it was done."""
    try:
        await store.command(statement)
    except DatabaseError as error:
        code: int | None = error.code
        return code
    return None


async def test_the_engine_parses_every_statement(store: Store) -> None:
    for statement in statements():
        answer = await store.query(f"EXPLAIN AST {statement}")
        assert answer.rows, statement


async def test_a_tenant_reads_its_own_rows_of_every_table_with_tenants_in_it_and_no_other_table(
    folder: Path,
) -> None:
    granted = set(role("pointsman_tenant").rows)
    assert {grant.split(".")[-1] for grant in role("pointsman_tenant").grants} == granted
    async with acting("pointsman_tenant", folder) as store:
        for name in granted:
            assert await tenants(store, name) == {TENANT}, name
            assert await code_of(f"INSERT INTO {name} (tenant_id) VALUES ('{TENANT}')", store) == ACCESS_DENIED, (
                name
            )
            assert await code_of(f"ALTER TABLE {name} DELETE WHERE 1", store) == ACCESS_DENIED, name
        # Not by asking for another's, nor by a column of another's rows.
        assert (await store.query(f"SELECT count() FROM requests WHERE tenant_id = '{OTHER}'")).rows == [(0,)]
        assert (await store.query("SELECT uniqExact(event_id), count() FROM requests FINAL")).rows == [(6, 6)]
        for table in (*tables.ALL, *tables.REPLAYS):
            if table.name not in granted:
                assert await code_of(f"SELECT count() FROM {table.name}", store) == ACCESS_DENIED, table.name


async def test_an_analyst_reads_everything_and_writes_replays_only(folder: Path) -> None:
    async with acting("pointsman_analyst", folder) as store:
        for name in role("pointsman_tenant").rows:
            assert await tenants(store, name) == {TENANT, OTHER}, name
        assert (await store.query("SELECT count() FROM alerts")).rows[0][0]
        run = Run(
            run_id="tried", made_at=START, source="history", warm_from=START, begins=START, ends=START, pins="{}"
        )
        results = Results(store, run)
        await results.begin()
        await results.close()
        assert [found.run_id for found in await runs(store)] == ["tried"]
        for table in tables.ALL:
            assert await code_of(f"ALTER TABLE {table.name} DELETE WHERE 1", store) == ACCESS_DENIED, table.name
        assert await code_of("DROP TABLE requests", store) == ACCESS_DENIED


async def test_readers_are_stopped_by_their_quota_and_the_service_is_not(folder: Path) -> None:
    assert role("pointsman_service").limits == {}
    for name in ("pointsman_tenant", "pointsman_analyst"):
        assert role(name).limits.keys() == {"queries", "read_rows", "execution_time"}
        async with acting(name, folder, queries="30") as store:
            codes = [await code_of("SELECT count() FROM requests", store) for _ in range(30)]
        assert (codes[0], codes[-1]) == (None, QUOTA_EXCEEDED), name  # connecting takes some, too


async def test_the_service_may_erase(folder: Path) -> None:
    erasure = erasure_of(TENANT, "p2", "ann", "asked for it")
    async with acting("pointsman_service", folder) as store:
        assert (await count(store, erasure))[0]["requests"] == 1
        await remove(store, erasure)
        assert (await count(store, erasure))[0] == {}
