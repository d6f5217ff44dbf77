"""The embedded engine behind ClickHouse's HTTP protocol: as much of it as clickhouse-connect speaks.

`python -m streams.embedded.clickhouse_server --path DIR --port N` serves one engine to other processes on
127.0.0.1, one query at a time. With `--faults` it can also misbehave on command (`POST /faults`), in the ways
real servers do, and says what it really applied (`GET /faults`): clients retry unseen, so count here.
"""

import asyncio
import json
import os
import re
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal
from uuid import uuid4

import chdb
import click
import lz4.frame
import msgspec
from aiohttp import web

from streams.embedded.clickhouse import LISTENING, EngineTaken, engine_taken

MAX_BODY_BYTES = 1 << 30
# URL parameters that are the transport's business and no settings of the engine.
_TRANSPORT = frozenset({
    "database", "query", "query_id", "session_id", "session_timeout", "session_check", "user", "password",
    "quota_key", "role", "compress", "decompress", "buffer_size", "wait_end_of_query", "client_protocol_version",
    "default_format", "enable_http_compression", "send_progress_in_http_headers",
    "http_headers_progress_interval_ms", "cancel_http_readonly_queries_on_client_close",
})  # fmt: skip
_INSERT = re.compile(rb"\s*(INSERT\s+INTO\s+(\S+).*?)\s+FORMAT\s+(\w+)\s*?\n", re.IGNORECASE | re.DOTALL)
_ANSWERS = re.compile(rb"\s*(SELECT|WITH|SHOW|DESCRIBE|DESC|EXPLAIN|EXISTS|CHECK)\b", re.IGNORECASE)
_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)\s*$", re.IGNORECASE)
_CODE = re.compile(r"Code: (\d+)")


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """What to do wrong with statements that contain `match`, until told otherwise or `times` times."""

    kind: Literal["", "refuse", "stall", "cut", "error"] = ""
    match: str = "INSERT"
    code: int = 241  # of `error`: MEMORY_LIMIT_EXCEEDED
    times: int = -1  # -1: no end

    def hits(self, statement: bytes) -> bool:
        """Whether it is this statement's turn; counts it."""
        if not self.kind or self.times == 0 or self.match.encode() not in statement:
            return False
        self.times -= 1
        return True


class Engine:
    """One chdb connection, used from one thread.

    Raises:
        EngineTaken: as `open_engine`.
    """

    def __init__(self, path: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chdb")
        try:
            self._connection = self._thread.submit(chdb.connect, path).result()
        except RuntimeError as error:
            raise engine_taken(path, error) from error
        self.inserts: Counter[str] = Counter()  # applied, by table

    async def run(self, statement: bytes, parameters: Mapping[str, str]) -> tuple[bytes, int]:
        """Run one statement as one HTTP request would be; the result's bytes, and how many rows were read.

        Raises:
            RuntimeError: what the engine refused, with its code in the message.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, statement, parameters)

    def _run(self, statement: bytes, parameters: Mapping[str, str]) -> tuple[bytes, int]:
        query = self._connection.query
        bound = {name[6:]: value for name, value in parameters.items() if name.startswith("param_")}
        settings = {k: v for k, v in parameters.items() if k not in _TRANSPORT and not k.startswith("param_")}
        query(f"USE `{parameters.get('database', 'default')}`", "Null")
        try:
            for name, value in settings.items():
                query(f"SET {name} = {_quoted(value)}", "Null")
            insert = _INSERT.match(statement)
            if insert is None:
                result = query(statement.decode(), "TabSeparated", params=bound)
                return result.bytes() or b"", result.storage_rows_read()
            with tempfile.NamedTemporaryFile(suffix=".insert") as file:
                file.write(statement[insert.end() :])
                file.flush()
                source = f"FROM INFILE {_quoted(file.name)} FORMAT {insert[3].decode()}"
                result = query(f"{insert[1].decode()} {source}", "Null")
            self.inserts[insert[2].decode().strip("`")] += 1
            return b"", result.storage_rows_read()
        finally:
            for name in settings:
                query(f"SET {name} = DEFAULT", "Null")

    def close(self) -> None:
        """Flush and let go of the directory."""
        self._thread.submit(self._connection.close).result()
        self._thread.shutdown()


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Server:
    """The HTTP face of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._fault = Fault()
        self._fault_changed = asyncio.Event()
        self._faulted = 0

    def app(self, faults: bool) -> web.Application:
        """The routes; those that misbehave only with `faults`."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.add_routes([web.get("/ping", self._ping), web.get("/", self._query), web.post("/", self._query)])
        if faults:
            app.add_routes([web.get("/faults", self._get_faults), web.post("/faults", self._set_fault)])
        return app

    async def _ping(self, _request: web.Request) -> web.Response:
        return web.Response(text="Ok.\n")

    async def _get_faults(self, _request: web.Request) -> web.Response:
        return web.json_response({"inserts": self._engine.inserts, "faulted": self._faulted})

    async def _set_fault(self, request: web.Request) -> web.Response:
        self._fault = msgspec.json.decode(await request.read(), type=Fault)
        self._fault_changed.set()
        self._fault_changed = asyncio.Event()
        return web.json_response({})

    async def _query(self, request: web.Request) -> web.StreamResponse:
        statement, parameters = await _statement(request)
        fault = self._fault.kind if self._fault.hits(statement) else ""
        self._faulted += bool(fault)
        if fault == "refuse":
            return web.Response(status=503, text="refused on command\n")
        if fault == "error":
            return _error(f"Code: {self._fault.code}. DB::Exception: on command. (ON_COMMAND)")
        if fault == "stall":
            await self._fault_changed.wait()
        try:
            body, read_rows = await self._engine.run(statement, parameters)
        except RuntimeError as error:
            return _error(str(error))
        headers = {
            "X-ClickHouse-Query-Id": parameters.get("query_id") or str(uuid4()),
            "X-ClickHouse-Summary": json.dumps({"read_rows": str(read_rows)}),
        }
        if _ANSWERS.match(statement):
            chosen = _FORMAT.search(statement)
            headers["X-ClickHouse-Format"] = chosen[1].decode() if chosen else "TabSeparated"
        if fault == "cut":
            return await _cut(request, headers, body)
        return web.Response(body=body, headers=headers)


async def _statement(request: web.Request) -> tuple[bytes, dict[str, str]]:
    """The statement with its data, and the parameters: from the address, the body, or a form of both."""
    parameters = dict(request.query)
    if request.content_type == "multipart/form-data":
        parameters |= {name: str(value) for name, value in (await request.post()).items()}
        return parameters["query"].encode(), parameters
    body = await request.read()
    if request.headers.get("Content-Encoding") == "lz4":
        body = lz4.frame.decompress(body)
    if "query" in parameters:
        body = parameters["query"].encode() + b"\n" + body
    return body, parameters


def _error(message: str) -> web.Response:
    code = _CODE.search(message)
    headers = {"X-ClickHouse-Exception-Code": code[1] if code else "1002"}
    return web.Response(status=500, text=message, headers=headers)


async def _cut(request: web.Request, headers: dict[str, str], body: bytes) -> web.StreamResponse:
    """Done, but the client never learns it: half of the answer, then a dead connection."""
    response = web.StreamResponse(headers=headers)
    response.content_length = len(body) + 2
    if body:
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.abort()
    return response


async def serve(path: str, port: int, faults: bool) -> None:
    """Serve until SIGTERM or SIGINT; prints the address when ready."""
    engine = Engine(path)
    runner = web.AppRunner(Server(engine).app(faults), handle_signals=False, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    address: tuple[Any, ...] = runner.addresses[0]
    print(f"{LISTENING}http://{address[0]}:{address[1]}", flush=True)
    os.dup2(2, 1)  # nobody reads on, and chdb itself writes to standard output
    await stop.wait()
    await runner.cleanup()
    engine.close()


def _end_with_parent() -> None:
    """Stop when the parent is gone: it holds the other end of our standard input."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


@click.command()
@click.option("--path", required=True, help="Directory of the engine.")
@click.option("--port", type=int, default=0, help="0: any free one; the address is printed.")
@click.option("--faults", is_flag=True, help="Allow POST /faults to make it misbehave (tests only).")
@click.option("--with-parent", is_flag=True, help="End when standard input closes.")
def main(path: str, port: int, faults: bool, with_parent: bool) -> None:
    """Serve the embedded ClickHouse engine over HTTP on 127.0.0.1."""
    if with_parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        asyncio.run(serve(path, port, faults))
    except EngineTaken as error:
        print(error, flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
