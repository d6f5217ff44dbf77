"""Real workers (`pointsman serve`) as child processes: started, killed, frozen, watched by their probes."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from streams.embedded.lifeline import tied

READY_SECONDS = 120.0  # six on an idle machine


class WorkerFailed(RuntimeError):
    """A worker ended, or did not become ready; the message ends with the tail of its log."""


class Worker:
    """One `pointsman serve` process. Its settings are environment variables, its log a file."""

    def __init__(self, name: str, folder: Path, settings: Mapping[str, str], roles: tuple[str, ...] = ()) -> None:
        """`settings`: `POINTSMAN_*` variables; a free port for the probes is chosen here."""
        self.name = name
        self.log = folder / f"{name}.log"
        self._port = _free_port()
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("POINTSMAN_") or k in _KEPT}
        self._environment = {**inherited, **settings, "POINTSMAN_WEB_PORT": str(self._port)}
        self._command = [sys.executable, "-m", "streams", "serve"]
        for role in roles:
            self._command += ["--role", role]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        if self._process is None:
            raise WorkerFailed(f"{self.name} is not running")
        return self._process.pid

    @property
    def metrics_url(self) -> str:
        """Where Prometheus would read it."""
        return f"http://127.0.0.1:{self._port}/metrics"

    def start(self) -> Self:
        """Start without waiting."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                tied(self._command), env=self._environment, stdin=subprocess.PIPE, stdout=log, stderr=log, bufsize=0
            )
        return self

    def await_ready(self, seconds: float = READY_SECONDS) -> Self:
        """Wait until /readyz says so.

        Raises:
            WorkerFailed: it ended, or is not ready in time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.exit_code() is not None:
                raise WorkerFailed(f"{self.name} ended with {self.exit_code()}\n{self.tail()}")
            if self.is_ready():
                return self
            time.sleep(0.1)
        raise WorkerFailed(f"{self.name} is not ready after {seconds:.0f} s\n{self.tail()}")

    def is_ready(self) -> bool:
        """Whether /readyz answers 200."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def exit_code(self) -> int | None:
        """None while it runs; -9 after a SIGKILL."""
        return self._process.poll() if self._process is not None else None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal: SIGKILL, SIGSTOP, SIGCONT, ..."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def stop(self, seconds: float = 30.0) -> int:
        """SIGTERM, wait, and return the exit status; SIGKILL when it takes longer than `seconds`."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.wait()

    def tail(self, lines: int = 25) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        """Start and wait until ready."""
        try:
            return self.start().await_ready()
        except BaseException:
            self.kill()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()


_KEPT = {"POINTSMAN_DATA", "POINTSMAN_CACHE"}


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
