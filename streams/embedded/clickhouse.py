"""The ClickHouse engine without an installation: chdb in this process, or behind its wire protocol in another."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ProgrammingError

LISTENING = "listening on "  # what the server process prints when it is ready, before its address


class EngineTaken(RuntimeError):
    """The engine's directory cannot be opened: another process has it, or this process has another one open."""


def open_engine(path: str | Path) -> Any:
    """Open (or create) the engine at `path` and return clickhouse-connect's synchronous client on it.

    One process can have one path open, and one path can be open in one process. Calls must come from one
    thread at a time.

    Raises:
        EngineTaken: the path is open in another process, or this process has another path open.
    """
    try:
        return clickhouse_connect.get_client(interface="chdb", path=str(path), tz_mode="aware")
    except ProgrammingError as error:
        raise engine_taken(path, error) from error


def engine_taken(path: str | Path, error: Exception) -> EngineTaken:
    """Say why chdb did not open `path`: its own message leaves out the reason."""
    why = str(error)
    if "already initialized" in why:
        why = "this process has another path open (one engine per process)"
    with contextlib.suppress(OSError, IndexError):
        owner = (Path(path) / "status").read_text().splitlines()[0]  # "PID: 123"
        why = f"another process has it open ({owner}): end it, or give both a server (clickhouse.dsn)"
    return EngineTaken(f"cannot open the ClickHouse engine at {path}: {why}")


class ClickHouseServer:
    """The engine in a process of its own, speaking ClickHouse's HTTP protocol on 127.0.0.1.

    Lets several processes share one engine. Ends with this process, whatever ends this one.
    """

    def __init__(self, path: str | Path, port: int = 0, faults: bool = False) -> None:
        self._command = [sys.executable, "-m", "streams.embedded.clickhouse_server", "--path", str(path)]
        self._command += ["--port", str(port), "--with-parent", *(["--faults"] if faults else [])]
        self._process: subprocess.Popen[str] | None = None
        self.dsn = ""

    @property
    def pid(self) -> int:
        """Of the running server; -1 when there is none."""
        return self._process.pid if self._process is not None else -1

    def start(self) -> Self:
        """Start it and return when it answers.

        Raises:
            EngineTaken: it ended instead; the message is what it said.
        """
        self._process = process = subprocess.Popen(  # noqa: S603
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        said = []
        for line in process.stdout or ():
            if line.startswith(LISTENING):
                self.dsn = line.removeprefix(LISTENING).strip()
                return self
            said.append(line)
        self.stop()
        raise EngineTaken(said[-1].strip() if said else "the ClickHouse server ended without a word")

    def stop(self) -> None:
        """End it; acknowledged inserts are on disk."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        self._end(signal.SIGKILL)

    def _end(self, sign: signal.Signals) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, sign)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
