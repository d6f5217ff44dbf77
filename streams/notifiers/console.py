"""One line per transition on a terminal or in a log."""

import errno
import os
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.text import Text

from schemas.alerts import Alert
from streams.notifiers.base import RetryLater
from streams.notifiers.text import description, identity, inert, timestamp

_STYLES = {"critical": "bold red", "warning": "yellow", "info": "cyan"}


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would end the process."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class ConsoleNotifier:
    """Writes to standard output, or to `file`; colours only on a terminal."""

    name = "console"
    resend_seconds = None

    def __init__(self, file: TextIO | None = None) -> None:
        self._console = _Console(file=file, soft_wrap=True, highlight=False)

    async def send(self, alerts: Sequence[Alert]) -> None:
        """Write the lines."""
        try:
            self._console.print(Text("\n").join(map(line, alerts)))
        except OSError as error:
            raise RetryLater(f"cannot write: {error.strerror}") from error

    async def close(self) -> None:
        """Nothing to give up."""


def line(alert: Alert) -> Text:
    """Time, status, severity, name, identity and numbers. A Text: rich reads no markup out of it."""
    style = "green" if alert.status == "resolved" else _STYLES[alert.severity]
    return Text.assemble(
        f"{timestamp(alert.time)} ",
        (f"{alert.status:<8} {alert.severity:<8} {inert(alert.alertname)}", style),
        f" {identity(alert)} ({description(alert)}) {inert(alert.alert_id)}",
    )
