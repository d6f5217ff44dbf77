"""Named queries as files: headers, parameters, values."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas.clickhouse import named
from schemas.clickhouse.named import BadParameter, NamedQuery

NOW = datetime(2026, 1, 31, 12, 0, 0, 500_000, tzinfo=UTC)
_PLACEHOLDER = re.compile(r"\{(\w+):([^}]+)\}")


@pytest.mark.parametrize("query", named.load().values(), ids=lambda query: query.name)
def test_a_header_declares_what_the_query_takes(query: NamedQuery) -> None:
    assert {(p.name, p.type) for p in query.parameters} == set(_PLACEHOLDER.findall(query.sql))
    assert query.bound.endswith(".")
    reads = re.findall(r"\b(?:FROM|JOIN)\s+(\w+)(?: AS taken)?( FINAL)?", query.sql)
    assert all(final for table, final in reads if table != "hits"), "reads must be exact"


def test_times() -> None:
    query = named.load()["first_use"]

    def since(text: str) -> str:
        return str(query.bind({"since": text}, NOW)["since"])

    assert since("now") == "2026-01-31 12:00:00.500"
    assert since("-90s") == "2026-01-31 11:58:30.500"
    assert since("-24h") == "2026-01-30 12:00:00.500"
    assert since("2026-01-31T12:00:00Z") == "2026-01-31 12:00:00.000"
    assert since("2026-01-31T12:00:00.25+02:00") == "2026-01-31 10:00:00.250"


def test_defaults_and_needs() -> None:
    bound = named.load()["verdicts_by_principal"].bind({"principal": "p"}, NOW)
    assert bound == {
        "principal": "p", "since": "2026-01-30 12:00:00.500", "until": "2026-01-31 12:00:00.500", "limit": 1000,
    }  # fmt: skip
    with pytest.raises(BadParameter, match="principal is needed"):
        named.load()["verdicts_by_principal"].bind({}, NOW)


@pytest.mark.parametrize("text", ["-1", "4294967296", "1.5", "", "٣", "1e3"])
def test_counts_are_counts(text: str) -> None:
    with pytest.raises(BadParameter, match="is no whole number from 0"):
        named.load()["first_use"].bind({"limit": text}, NOW)


@pytest.mark.parametrize(
    "header", ["SELECT 1", "-- No bound.\nSELECT 1", "-- A.\n-- param x: y\n-- bound: z.\nSELECT 1"]
)
def test_a_file_with_another_header_is_an_error(tmp_path: Path, header: str) -> None:
    (tmp_path / "q.sql").write_text(header)
    with pytest.raises(ValueError, match=r"q\.sql"):
        named.load(tmp_path)
