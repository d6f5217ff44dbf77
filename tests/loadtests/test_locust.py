"""A Locust scenario in its short form, with all around it: real broker, engine, workers, and the proof by ids."""

from pathlib import Path

import pytest

from loadtests.load.run import Ground, Plan, run
from loadtests.load.scenarios import SCENARIOS
from loadtests.reckoning import Reckoner
from streams.embedded.clickhouse import ClickHouseServer
from streams.embedded.kafka import KafkaCluster


@pytest.mark.timeout(600)
def test_hostile_records_among_the_traffic_of_two_gateways(kafka: KafkaCluster, tmp_path: Path) -> None:
    with ClickHouseServer(tmp_path / "clickhouse") as engine:
        where = Ground(kafka, engine, tmp_path, Reckoner())
        found, _ = run(where, "malformed", Plan(gateways=2, seconds=8, seed=3, attack_ratio=0.02), tmp_path)
    assert found.exact, found.reckoning
    assert not found.generator.failed, found.generator
    assert found.requests > 400
    assert found.reckoning.dead_letters == 160, "a fifth as many hostile records as requests"
    assert found.reckoning.rows["requests"] == found.requests
    assert found.recall is not None
    assert found.recall > 0.9
    assert [attack.name for attack in found.attacks if attack.detected] == ["known"]
    assert found.verdict_ms is not None
    assert found.verdict_ms.count > 0.9 * found.requests
    assert found.alert_ms is not None
    assert found.visible_ms is not None
    assert {"malformed_stats.csv", "malformed.html"} <= {path.name for path in tmp_path.iterdir()}


def test_every_scenario_has_its_locustfile() -> None:
    folder = Path(__file__).parents[2] / "loadtests" / "locustfiles"
    assert [name for name, each in SCENARIOS.items() if not (folder / f"{each.file}.py").is_file()] == []
