"""ClickHouse behind one async face: a server by its DSN, or the embedded engine in this process."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit, urlunsplit

import clickhouse_connect

from schemas.clickhouse.tables import Table
from streams.settings import ClickHouse

_SCHEMES = {"clickhouse": "http", "clickhouses": "https", "http": "http", "https": "https"}
SEND_RECEIVE_SECONDS = 60.0


class Answer(NamedTuple):
    """A query's result. `read_rows` is what the engine read for it; 0 where it does not say."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    read_rows: int

    def records(self) -> list[dict[str, Any]]:
        """Rows by column name."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Store:
    """Connects when first used, so that a server that is down is an error of the call, which may be repeated.

    Errors are clickhouse-connect's; their `code` is ClickHouse's, or None where no answer came.
    """

    def __init__(
        self, dsn: str = "", path: str | Path = "", database: str = "default", timeout: float = SEND_RECEIVE_SECONDS
    ) -> None:
        """Take a server's `dsn` (`http(s)` or `clickhouse(s)`), or the embedded engine's `path`.

        Raises:
            ValueError: neither or both, or another scheme.
        """
        if bool(dsn) == bool(path):
            raise ValueError("give either a DSN or the embedded engine's path")
        self.database = database
        self._path = path
        self._timeout = timeout
        self._dsn, self._interface = _server(dsn) if dsn else ("", "")
        self._client: Any = None
        self._connecting = asyncio.Lock()
        # chdb answers one call at a time, and blocks.
        self._thread = None if dsn else ThreadPoolExecutor(1, thread_name_prefix="clickhouse")

    @classmethod
    def of(cls, settings: ClickHouse) -> Self:
        """The server that the settings name, or else the embedded engine."""
        return cls(settings.dsn, "" if settings.dsn else settings.path, settings.database)

    async def insert(self, table: Table, columns: Sequence[Sequence[Any]], token: str) -> None:
        """Insert rows, given by columns in the table's order, as one block.

        The same block with the same token is taken once, within the table's deduplication window.
        """
        context = await self._call(
            "create_insert_context", table.name, table.columns, column_type_names=table.types,
            column_oriented=True, settings={
                "insert_deduplication_token": token,
                "deduplicate_blocks_in_dependent_materialized_views": 1,
            },
        )  # fmt: skip
        # The client cuts rows into blocks of 1 to 2 MB, and the engine takes a token's second block for a repeat.
        context.req_block_size = len(columns[0])
        await self._call("insert", data=columns, context=context)

    async def query(
        self, sql: str, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> Answer:
        """Run one SELECT; `{name:Type}` in it is taken from `parameters`."""
        result = await self._call("query", sql, parameters=parameters, settings=settings)
        read_rows = int(result.summary.get("read_rows", 0))
        return Answer(tuple(result.column_names), result.result_rows, read_rows)

    async def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Run one statement that answers nothing."""
        await self._call("command", sql, parameters=parameters)

    async def create_database(self) -> None:
        """Create the database where it is not there yet."""
        await self._call("command", f"CREATE DATABASE IF NOT EXISTS `{self.database}`", use_database=False)

    async def close(self) -> None:
        """Let go of the connection, or of the engine's directory."""
        async with self._connecting:
            client, self._client = self._client, None
            if client is not None:
                await self._run(client.close)
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(self, method: str, *args: Any, **options: Any) -> Any:
        client = await self._connected()
        return await self._run(getattr(client, method), *args, **options)

    async def _run(self, method: Any, *args: Any, **options: Any) -> Any:
        if self._thread is None:
            return await method(*args, **options)
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(method, *args, **options))

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._client is None:
                client = await self._connect()
                client.database = self.database  # only now: to connect needs no database of ours
                self._client = client
            return self._client

    async def _connect(self) -> Any:
        if self._thread is not None:
            from streams.embedded.clickhouse import open_engine  # chdb is an optional dependency

            return await self._run(open_engine, self._path)
        return await clickhouse_connect.get_async_client(
            dsn=self._dsn, interface=self._interface, send_receive_timeout=self._timeout,
            autogenerate_session_id=False,  # a session would allow one query at a time
            tz_mode="aware",
        )  # fmt: skip


def _server(dsn: str) -> tuple[str, str]:
    """The DSN without its database (ours comes from the settings, and may not exist yet), and http or https."""
    parts = urlsplit(dsn)
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"a ClickHouse DSN starts with {', '.join(f'{s}://' for s in _SCHEMES)}")
    interface = _SCHEMES[parts.scheme]
    return urlunsplit(parts._replace(scheme=interface, path="")), interface
