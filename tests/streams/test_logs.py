"""The log: one line a record whatever it holds, only known extras, and no flood from client libraries."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import logs
from streams.metrics import LOG_DROPPED
from streams.settings import Log


def record(
    message: str = "m", name: str = "streams.lane", level: int = logging.INFO, **extra: object
) -> logging.LogRecord:
    made = logging.LogRecord(name, level, __file__, 1, message, None, None)
    made.__dict__.update(extra)
    return made


@given(st.text(), st.text())
def test_json_is_one_inert_line(message: str, request_id: str) -> None:
    line = logs.JsonFormatter().format(record(message, request_id=request_id))
    assert line.isascii()
    assert line.isprintable()
    entry = json.loads(line)
    assert entry["message"] == message[: logs.MESSAGE_CHARS]
    assert entry["request_id"] == request_id


@given(st.text(), st.text())
def test_text_is_one_inert_line(message: str, request_id: str) -> None:
    assert logs.TextFormatter().format(record(message, request_id=request_id)).isprintable()


def test_escape_codes_and_new_lines_do_nothing() -> None:
    evil = "x\n2026 CRITICAL forged\x1b[2J\u202e\u2028\x9b\x7f"
    for formatter in (logs.JsonFormatter(), logs.TextFormatter()):
        line = formatter.format(record(evil, request_id=evil))
        assert line.isprintable()
        assert "forged" in line


def test_only_known_extras_are_written() -> None:
    made = record(trace_id="4bf9", prompt_text="the prompt", partition=3)
    for formatter in (logs.JsonFormatter(), logs.TextFormatter()):
        line = formatter.format(made)
        assert "4bf9" in line
        assert "the prompt" not in line
    assert json.loads(logs.JsonFormatter().format(made))["partition"] == 3


def test_exceptions_have_their_traceback() -> None:
    made = record()
    try:
        raise KeyError("a\x1b[2Jb")
    except KeyError as error:
        made.exc_info = (KeyError, error, error.__traceback__)
    line = logs.JsonFormatter().format(made)
    assert line.isprintable()
    assert "test_exceptions_have_their_traceback" in json.loads(line)["exception"]
    lines = logs.TextFormatter().format(made).split("\n")
    assert len(lines) > 2
    assert all(map(str.isprintable, lines))


def test_long_messages_are_cut() -> None:
    assert len(logs.JsonFormatter().format(record("x" * 100_000))) < logs.MESSAGE_CHARS + 300


def test_rate_limit() -> None:
    now = [0.0]
    limit = logs.RateLimit(burst=3, seconds=30, clock=lambda: now[0])
    dropped = LOG_DROPPED.labels("aiokafka")
    before = dropped._value.get()

    def passed(n: int, **kind: object) -> int:
        return sum(limit.filter(record(f"down {i}", **kind)) for i in range(n))  # type: ignore[arg-type]

    assert passed(1000, name="aiokafka.conn") == 3
    assert dropped._value.get() - before == 997
    assert passed(1, name="aiokafka.conn", level=logging.ERROR) == 1, "each level has its own"
    assert passed(1000, name="streams.lane") == 1000, "ours are not limited"
    assert passed(10, name="aiokafkaesque") == 10
    now[0] = 30.0
    again = record("back at %s", name="aiokafka.client")
    again.args = ("once",)
    assert limit.filter(again)
    assert again.getMessage() == "back at once (before it 997 held back)"
    assert passed(10, name="aiokafka.conn") == 2
    now[0] = 90.0
    quiet = record("quiet", name="aiokafka")
    assert limit.filter(quiet)
    assert quiet.getMessage() == "quiet (before it 8 held back)"


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield root
    root.handlers, root.level = handlers, level


def test_setup_limits_what_children_of_a_library_log(root_logger: logging.Logger) -> None:
    stream = io.StringIO()
    logs.setup(Log(level="WARNING", json=True), stream)
    for i in range(100):
        logging.getLogger("aiokafka.consumer.group_coordinator").error("coordinator dead %d", i)
    logging.getLogger("streams.lane").info("below the level")
    logging.getLogger("streams.lane").warning("stops", extra={"lane": "detect"})
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == 21
    assert lines[-1]["lane"] == "detect"
    assert lines[-1]["time"].endswith("+00:00")


def test_setup_for_people(root_logger: logging.Logger) -> None:
    stream = io.StringIO()
    logs.setup(Log(level="INFO", json=False), stream)
    logging.getLogger("streams.lane").info("lane %s resumes", "detect")
    assert stream.getvalue().rstrip().endswith("INFO    streams.lane: lane detect resumes")
