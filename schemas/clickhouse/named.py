"""The named forensic queries in `queries/*.sql`, with the parameters that their headers declare.

A header is the comment at the top of a file: a sentence, one line `-- param NAME TYPE [= DEFAULT]: meaning` a
parameter, and `-- bound: ...`, what it reads at most.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

_FOLDER = Path(__file__).parent / "queries"
_PARAM = re.compile(r"-- param (\w+) ([^=:]+?)(?: = (.+?))?: (.+)")
_BOUND = re.compile(r"-- bound: (.+)")
_TIME = "DateTime64(3, 'UTC')"
_AGO = re.compile(r"-(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class BadParameter(ValueError):
    """A parameter that the query does not have, has no value for, or cannot read."""


class Parameter(NamedTuple):
    """`default` is text, as a caller would give it; None: the caller must."""

    name: str
    type: str
    default: str | None
    meaning: str


class NamedQuery(NamedTuple):
    """One file."""

    name: str
    summary: str
    parameters: tuple[Parameter, ...]
    bound: str
    sql: str  # without the header

    def bind(self, given: Mapping[str, str], now: datetime) -> dict[str, Any]:
        """Values for ClickHouse from text; `now` is what relative times (`now`, `-24h`) are told from.

        Raises:
            BadParameter: names the parameter and what is wrong.
        """
        known = [parameter.name for parameter in self.parameters]
        if unknown := set(given) - set(known):
            raise BadParameter(
                f"{self.name} has no parameter {', '.join(sorted(unknown))}: it has {', '.join(known)}"
            )
        return {parameter.name: _value(parameter, given.get(parameter.name), now) for parameter in self.parameters}


@cache
def load(folder: Path = _FOLDER) -> dict[str, NamedQuery]:
    """All queries by name.

    Raises:
        ValueError: a file whose header is not as the module says.
    """
    return {path.stem: _read(path) for path in sorted(folder.glob("*.sql"))}


def _read(path: Path) -> NamedQuery:
    lines = path.read_text(encoding="utf-8").splitlines()
    header = [line for line in lines if line.startswith("-- ")]
    parameters = [Parameter(*_parts(match)) for line in header if (match := _PARAM.fullmatch(line))]
    bounds = [match[1] for line in header if (match := _BOUND.fullmatch(line))]
    summary = header[0].removeprefix("-- ") if header else ""
    if len(header) != 2 + len(parameters) or len(bounds) != 1 or not summary.endswith("."):
        raise ValueError(f"{path}: a header is a sentence, `-- param` lines and one `-- bound:`")
    sql = "\n".join(lines[len(header) :]).strip()
    return NamedQuery(path.stem, summary, tuple(parameters), bounds[0], sql)


def _parts(match: re.Match[str]) -> tuple[str, str, str | None, str]:
    name, kind, default, meaning = match.groups()
    return name, kind, "" if default == '""' else default, meaning


def _value(parameter: Parameter, given: str | None, now: datetime) -> Any:
    text = parameter.default if given is None else given
    if text is None:
        raise BadParameter(f"{parameter.name} is needed: {parameter.meaning}")
    try:
        return _time(text, now) if parameter.type == _TIME else _READERS[parameter.type](text)
    except ValueError as error:
        raise BadParameter(f"{parameter.name}: {error}") from None


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= 1 << 32:
        raise ValueError(f"{text!r} is no whole number from 0 to 4294967295")
    return int(text)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is no finite number")
    return number


_READERS: dict[str, Callable[[str], Any]] = {"String": str, "UInt32": _count, "Float64": _number}


def moment(text: str, now: datetime) -> datetime:
    """A time from `now`, so long ago (`-24h`, `-30m`, `-7d`), or ISO 8601 with a zone.

    Raises:
        ValueError: it is none of them.
    """
    if text == "now":
        return now
    if ago := _AGO.fullmatch(text):
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time: `now`, so long ago as -24h, or as 2026-01-31T12:00:00Z") from None
    if found.tzinfo is None:
        raise ValueError("a time needs its zone, as 2026-01-31T12:00:00Z")
    return found.astimezone(UTC)


def _time(text: str, now: datetime) -> str:
    """In the form that ClickHouse takes for a DateTime64 parameter, UTC."""
    return moment(text, now).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def markdown() -> str:
    """The page docs/queries.md."""
    lines = [
        "# Named queries",
        "",
        "Made by `pointsman query --markdown > docs/queries.md` from `schemas/clickhouse/queries`.",
        "",
        "`pointsman query NAME --param key=value` runs one; `--json` gives it to programs. Times are `now`, so",
        "long ago (`-24h`, `-30m`, `-7d`) or ISO 8601 with a zone. Reads are exact, whatever was delivered twice.",
    ]
    for query in load().values():
        lines += ["", f"## `{query.name}`", "", query.summary, "", f"Reads: {query.bound}", ""]
        lines += ["| parameter | type | default | meaning |", "|---|---|---|---|"]
        for name, kind, default, meaning in query.parameters:
            shown = "needed" if default is None else f"`{json.dumps(default)}`"
            lines.append(f"| `{name}` | {kind} | {shown} | {meaning} |")
        lines += ["", "```sql", query.sql, "```"]
    return "\n".join(lines) + "\n"
