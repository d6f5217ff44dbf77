"""The embedded engine. One process can have one path open, so each test opens it in processes of its own."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import clickhouse_connect
import psutil
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from streams.embedded.clickhouse import ClickHouseServer, EngineTaken

IN_PROCESS = """
import asyncio, sys
from schemas.clickhouse import migrations, tables
from streams.embedded.clickhouse import EngineTaken
from streams.migrations import migrate
from streams.store import Store
from tests.streams.history.planted import log, request
from schemas import topics
from streams.history import History

async def main(path):
    async def never(record, error):
        raise error
    async with Store(path=path, database="pm") as store:
        await migrate(store, migrations.load())
        await History(store, never).insert(log(topics.EVENTS, [request(f"r{n}") for n in range(50)]))
        return (await store.query("SELECT count(), max(event_time) FROM requests FINAL")).rows

print(asyncio.run(main(sys.argv[1])))
other = Store(path=sys.argv[1] + ".other")
print(asyncio.run(other.command("SELECT 1")))
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)


def test_in_this_process(tmp_path: Path) -> None:
    """The same store, migrations and lane core as with a server; closed, the process may open another path."""
    done = python(IN_PROCESS, str(tmp_path / "engine"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[(50, datetime.datetime(")
    assert "tzinfo=datetime.timezone.utc" in done.stdout


def test_a_path_that_is_taken_says_by_whom(tmp_path: Path) -> None:
    code = "from streams.embedded.clickhouse import open_engine; import sys; open_engine(sys.argv[1])"
    with ClickHouseServer(tmp_path) as server:
        done = python(code, str(tmp_path))
        assert done.returncode == 1
        assert f"another process has it open (PID: {server.pid})" in done.stderr
        with pytest.raises(EngineTaken, match=f"PID: {server.pid}"):
            ClickHouseServer(tmp_path).start()
    two = f"{code}; open_engine(sys.argv[1] + '.other')".replace("; open", "; keep = open", 1)
    assert "this process has another path open" in python(two, str(tmp_path)).stderr


def test_clients_of_both_kinds_unchanged(tmp_path: Path) -> None:
    with ClickHouseServer(tmp_path) as server:
        client = clickhouse_connect.get_client(dsn=server.dsn)
        assert client.ping()
        assert client.command("SELECT 1 + {x:UInt8}", parameters={"x": 41}) == 42
        client.command("CREATE TABLE t (n UInt64, s String) ENGINE = MergeTree ORDER BY n")
        client.insert("t", [[n, f"it's\n{n}"] for n in range(1000)], column_names=["n", "s"])
        long = "x" * 100_000  # parameters beyond an address's length go as a form
        result = client.query("SELECT max(n), length({long:String}) FROM t", parameters={"long": long})
        assert result.result_rows == [(999, 100_000)]
        assert client.query("SELECT s FROM t WHERE n = 7").result_rows == [("it's\n7",)]
        assert client.raw_query("SELECT n FROM t ORDER BY n LIMIT 2", fmt="CSV") == b"0\n1\n"
        with pytest.raises(DatabaseError) as refused:
            client.query("SELECT * FROM nowhere")
        assert (refused.value.code, refused.value.name) == (60, "UNKNOWN_TABLE")
        # A setting of one request is none of the next.
        with pytest.raises(DatabaseError, match="TOO_MANY_ROWS"):
            client.query("SELECT count() FROM t WHERE n % 2", settings={"max_rows_to_read": 10})
        assert client.query("SELECT count() FROM t WHERE n % 2").result_rows == [(500,)]
        client.close()
        with pytest.raises(HTTPError, match="404"):  # not unless it was started with --faults
            urlopen(f"{server.dsn}/faults", data=b"{}")  # noqa: S310
        assert asyncio.run(_with_async_client(server.dsn)) == [(1001,)]


async def _with_async_client(dsn: str) -> object:
    async with await clickhouse_connect.get_async_client(dsn=dsn) as client:
        await client.insert("t", [[1000], ["s"]], column_names=["n", "s"], column_oriented=True)
        return (await client.query("SELECT count() FROM t")).result_rows


def test_what_was_acknowledged_survives_a_crash(tmp_path: Path) -> None:
    server = ClickHouseServer(tmp_path).start()
    client = clickhouse_connect.get_client(dsn=server.dsn)
    client.command("CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n")
    client.insert("t", [[n] for n in range(10_000)], column_names=["n"])
    server.kill()
    with pytest.raises(OperationalError):
        client.query("SELECT 1")
    with ClickHouseServer(tmp_path) as again:
        assert clickhouse_connect.get_client(dsn=again.dsn).query("SELECT count() FROM t").result_rows == [
            (10_000,)
        ]


def test_the_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import sys, os; from streams.embedded.clickhouse import ClickHouseServer;"
        "print(ClickHouseServer(sys.argv[1]).start().pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    server = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    server.wait(timeout=30)
