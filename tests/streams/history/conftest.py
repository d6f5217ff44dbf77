"""One engine behind its wire protocol for all tests of the history, a database each."""

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from schemas.clickhouse import migrations
from streams.embedded.clickhouse import ClickHouseServer
from streams.migrations import migrate
from streams.store import Store


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """The embedded engine in a process of its own; misbehaves on command."""
    with ClickHouseServer(tmp_path_factory.mktemp("clickhouse"), faults=True) as started:
        yield started


@pytest.fixture
async def empty(server: ClickHouseServer) -> AsyncIterator[Store]:
    """A store whose database does not exist yet."""
    async with Store(server.dsn, database=f"t{secrets.token_hex(6)}", timeout=5.0) as store:
        yield store


@pytest.fixture
async def store(empty: Store) -> Store:
    """A store with all tables."""
    await migrate(empty, migrations.load())
    return empty
