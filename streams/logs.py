"""The log: one line a record, whatever is in it, and no flood of lines from clients during an outage.

Prompt text never comes here: the codec's errors quote nothing, and of a record's extras only the known ones
are written. Whoever can put text into an event must not be able to write a line, or a terminal's escape code.
"""

import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

from streams.metrics import LOG_DROPPED
from streams.settings import Log

EXTRAS = ("request_id", "trace_id", "lane", "topic", "partition", "offset")
NOISY = ("aiokafka", "faust", "mode")  # an outage makes thousands of lines through these
MESSAGE_CHARS = 8_192


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII: newlines, control and direction characters come out escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's time, level, logger, message, known extras, and traceback where there is one."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage()[:MESSAGE_CHARS],
        }
        entry.update((name, getattr(record, name)) for name in EXTRAS if hasattr(record, name))
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)[-MESSAGE_CHARS:]
        return json.dumps(entry, default=str).replace("\x7f", "\\u007f")


class TextFormatter(logging.Formatter):
    """For people: the same line without JSON; what is not printable is escaped. Tracebacks take lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Time of day, level, logger, message, known extras."""
        extras = [f"{name}={getattr(record, name)}" for name in EXTRAS if hasattr(record, name)]
        message = " ".join([record.getMessage()[:MESSAGE_CHARS], *extras])
        clock = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        lines = [f"{clock} {record.levelname:<7} {record.name}: {_printable(message)}"]
        if record.exc_info:
            lines += map(_printable, self.formatException(record.exc_info)[-MESSAGE_CHARS:].split("\n"))
        return "\n".join(lines)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


class RateLimit(logging.Filter):
    """Of each noisy library and level, at most `burst` records in `seconds`; says how many it held back.

    For a handler: a logger's own filters do not see what its children log.
    """

    def __init__(self, burst: int = 20, seconds: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with an empty window for every library and level."""
        super().__init__()
        self._burst = burst
        self._seconds = seconds
        self._clock = clock
        self._windows: dict[tuple[str, int], list[float]] = {}  # start, records in it

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written; changes the message of the first one after some were held back."""
        library = record.name.partition(".")[0]
        if library not in NOISY:
            return True
        now = self._clock()
        window = self._windows.setdefault((library, record.levelno), [now, 0])
        if now - window[0] >= self._seconds:
            held = int(window[1]) - self._burst
            window[:] = [now, 0]
            if held > 0:
                record.msg, record.args = f"{record.getMessage()} (before it {held} held back)", None
        window[1] += 1
        if window[1] <= self._burst:
            return True
        LOG_DROPPED.labels(library).inc()
        return False


def setup(settings: Log, stream: TextIO | None = None) -> None:
    """Send all logging to `stream` (default: standard error); replaces handlers that were there."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.json else TextFormatter())
    handler.addFilter(RateLimit())
    logging.basicConfig(level=settings.level, handlers=[handler], force=True)
