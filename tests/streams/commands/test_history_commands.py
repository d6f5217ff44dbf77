"""`pointsman migrate` and `pointsman query`, against the engine behind its wire protocol."""

import asyncio
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from schemas import topics
from schemas.clickhouse import migrations, named
from streams.cli import main
from streams.embedded.clickhouse import ClickHouseServer
from streams.history import History
from streams.store import Store
from tests.streams.history.planted import flagged, log

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    with ClickHouseServer(tmp_path_factory.mktemp("clickhouse")) as started:
        yield started


@pytest.fixture
def environment(server: ClickHouseServer) -> dict[str, str]:
    return {
        "POINTSMAN_CLICKHOUSE_DSN": server.dsn.replace("http://", "clickhouse://"),
        "POINTSMAN_CLICKHOUSE_DATABASE": f"t{secrets.token_hex(6)}",
    }


def run(environment: dict[str, str], *arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, env=environment)


def insert(environment: dict[str, str], verdicts: list[Any]) -> None:
    async def never(_record: Any, error: Exception) -> None:
        raise error

    async def work() -> None:
        dsn, database = environment.values()
        async with Store(dsn, database=database) as store:
            await History(store, never).insert(log(topics.VERDICTS, verdicts))

    asyncio.run(work())


def test_migrate(environment: dict[str, str]) -> None:
    dry = run(environment, "migrate", "--dry-run")
    assert dry.exit_code == 0
    assert "CREATE TABLE IF NOT EXISTS requests" in dry.output
    assert run(environment, "query", "unjudged_by_reason").exit_code == 1  # nothing was changed

    up = json.loads(run(environment, "migrate", "--json").output)
    files = migrations.load()
    assert [(step["version"], step["direction"]) for step in up["steps"]] == [(f.version, "up") for f in files]
    assert run(environment, "migrate").output == "nothing to do\n"
    last = files[-1]
    down = run(environment, "migrate", "--to", str(last.version - 1)).output
    assert down == f"down {last.version:04} {last.name}\n"
    wrong = run(environment, "migrate", "--to", "999")
    assert (wrong.exit_code, wrong.output) == (1, f"Error: no version 999: there are 0 to {last.version}\n")


def test_query(environment: dict[str, str]) -> None:
    nowhere = run({"POINTSMAN_CLICKHOUSE_PATH": "var/none"}, "query", "first_use")
    assert (nowhere.exit_code, "there is no folder var/none" in nowhere.output) == (1, True)
    wrong = run(environment, "query", "first_use", "--param", "windows=w")
    assert (wrong.exit_code, "has no parameter windows: it has window, " in wrong.output) == (2, True)
    missing = run(environment, "query", "first_use", "--param", "window=w")
    assert missing.exit_code == 1
    assert "pointsman migrate" in missing.output
    run(environment, "migrate")
    assert run(environment, "query", "first_use", "--param", "window=w").output == "no rows\n"
    insert(environment, [flagged("r1", "p1", window="w"), flagged("r2", "p2", 1, window="w")])
    arguments = ("query", "first_use", "--param", "window=w", "--param", "since=-3d", "--json")
    found = json.loads(run(environment, *arguments).output)
    assert found["query"] == "first_use"
    assert [(row["principal_hash"], row["requests"]) for row in found["rows"]] == [("p1", 1), ("p2", 1)]
    assert found["rows"][0]["first_seen"].endswith("Z")
    assert found["read_rows"] > 0


@pytest.mark.parametrize("payload", ["\x1b[2J\x1b[31mred", "a\nb\rc", "\u202egnp", "\x9b31m", "\u2028x"])
def test_what_events_hold_cannot_act_on_a_terminal(environment: dict[str, str], payload: str) -> None:
    run(environment, "migrate")
    insert(environment, [flagged(f"r{payload}", f"p{payload}", window="w")])
    output = run(environment, "query", "first_use", "--param", "window=w", "--param", "since=-3d").output
    assert len(output.splitlines()) == 2
    assert all(c.isprintable() for line in output.splitlines() for c in line)
    assert payload[-3:].encode("unicode_escape").decode() in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a NAME"),
        (("nope",), "no query 'nope'"),
        (("first_use", "--param", "window"), "is not KEY=VALUE"),
        (("first_use", "--param", "x=1"), "first_use has no parameter x"),
        (("verdicts_by_principal",), "principal is needed"),
        (("first_use", "--param", "limit=-1"), "limit: '-1' is no whole number"),
        (("first_use", "--param", "since=2026-01-31T12:00:00"), "a time needs its zone"),
        (("first_use", "--param", "since=yesterday"), "since: 'yesterday' is no time"),
    ],
)
def test_a_wrong_call_says_why(environment: dict[str, str], arguments: tuple[str, ...], message: str) -> None:
    result = run(environment, "query", *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_list_and_page(environment: dict[str, str]) -> None:
    listed = json.loads(run(environment, "query", "--list", "--json").output)
    assert [query["name"] for query in listed] == list(named.load())
    assert all(name in run(environment, "query", "--list").output for name in named.load())
    page = (ROOT / "docs" / "queries.md").read_text()
    assert page == run(environment, "query", "--markdown").output, "pointsman query --markdown > docs/queries.md"
