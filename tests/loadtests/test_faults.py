"""A selection of `make faults`: what it harms, each on the real cluster and engine, and judged by ids."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.faults import page, report
from loadtests.faults.catalogue import CATALOGUE, Fault, combine, together
from loadtests.faults.report import Row
from loadtests.faults.run import Ground, free_port, plan, run
from loadtests.proxy import Proxy
from loadtests.reckoning import Reckoner
from loadtests.stream import with_waves
from streams.embedded.clickhouse import ClickHouseServer
from streams.embedded.kafka import KafkaCluster

RATE = 40.0
SECONDS = 240.0  # of traffic made: more than a row takes on a busy machine


@pytest.fixture
def ground(cluster: KafkaCluster, tmp_path: Path) -> Iterator[Ground]:
    with (
        ClickHouseServer(tmp_path / "clickhouse", free_port(), faults=True) as engine,
        Proxy(cluster.side_doors) as proxy,
    ):
        yield Ground(cluster, engine, proxy, tmp_path, with_waves(SECONDS, RATE, 1), Reckoner())


@pytest.mark.timeout(600)
def test_workers_die_and_inserts_are_refused_and_hostile_records_come_at_once(ground: Ground) -> None:
    seed = secrets.randbelow(1 << 31)
    names = ["worker_killed", "half_written", "poison"]
    row = run(ground, " + ".join(names), Fault("at once", "", together(names)), seed, short=True)
    assert row.good, row
    assert row.dead_letters > 0, row
    assert row.restarts > 0, row


def test_a_row_is_good_only_if_nothing_is_wrong_and_attacks_are_found() -> None:
    figures = dict.fromkeys(Row.__struct_fields__, 0) | {"fault": "none", "details": []}
    good = Row(**{**figures, "recall": 1.0, "recovery_s": 1.0})  # type: ignore[arg-type]
    assert good.good
    for name, value in (
        ("lost", 1), ("duplicated", 1), ("unexpected", 1), ("wrong_state", 1), ("recall", 0.5),
        ("recovery_s", None),
    ):  # fmt: skip
        assert not Row(**{**figures, "recall": 1.0, "recovery_s": 1.0, name: value}).good, name  # type: ignore[arg-type]


def test_a_seed_gives_the_same_combinations_again_and_no_part_is_harmed_twice() -> None:
    first, again = [list(dict(plan([], 5, seed=9))) for _ in range(2)]
    assert first == again
    for name in first:
        parts = [CATALOGUE[each].part for each in name.split(" + ")]
        assert len(set(parts)) == len(parts) == 3
    import random

    assert set(combine(random.Random(1))) <= set(CATALOGUE)


def test_the_page_has_the_newest_row_of_each_fault_form_and_seed(tmp_path: Path) -> None:
    def row(fault: str, **fields: object) -> Row:
        usual = {"fault": fault, "details": [], "recall": 1.0, "recovery_s": 2.0, "short": True}
        return Row(**{**dict.fromkeys(Row.__struct_fields__, 0), **usual, **fields})  # type: ignore[arg-type]

    report.write(tmp_path / report.NAME, [row("poison", requests=1), row("none", requests=2)])
    report.write(tmp_path / report.NAME, [row("poison", requests=3, lost=1), row("worker_killed + poison")])
    page.write(tmp_path, tmp_path)
    text = (tmp_path / "faults.md").read_text()
    report.write(tmp_path / report.NAME, [row("poison", seed=1)])
    assert [(r.seed, r.lost) for r in report.read(tmp_path / report.NAME) if r.fault == "poison"] == [
        (0, 1),
        (1, 0),
    ]
    assert "2 of 3 rows" in text
    table = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert [(cells[0], cells[3]) for cells in table] == [
        ("| `none`", "2"), ("| `poison`", "3"), ("| `worker_killed + poison`", "0"),
    ]  # fmt: skip
    assert table[1][4] == "1, 0, 0, 0 **✗**"
