"""The Faust app of a process."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from detectors.detections import load
from detectors.processor import Processor
from loadtests.workers import Worker, WorkerFailed
from streams.app import ROLES, Role, build
from streams.lanes import detect
from streams.settings import ClickHouse, Feedback, Fleet, Kafka, Settings


def test_only_a_worker_that_judges_warms_up_and_before_its_lane_joins() -> None:
    """Compiling at the first batch held every partition for as long: 10 s of CPU where no cache can be written."""
    judging, storing = (_services([role]) for role in ("detect", "history"))
    assert judging.index("WarmUp") < judging.index("Lane")
    assert "WarmUp" not in storing


def test_the_first_request_is_judged_and_nothing_of_it_kept() -> None:
    settings = Settings()
    spec = detect.spec(settings, detect.panel_of(settings.detect), load(None))
    made = []

    def make(partition: int) -> Processor:
        made.append(spec.make(partition))
        return made[-1]

    detect.warm_up(replace(spec, make=make))
    [judge] = made
    assert judge.counters["joins.met"] == 1
    assert not any(name.startswith("dead_letters") for name in judge.counters)


async def test_what_was_never_started_can_be_stopped() -> None:
    """As it is when a service before it does not start: an error of its own hid that one's."""
    settings = Settings(
        kafka=Kafka(bootstrap="127.0.0.1:1"), clickhouse=ClickHouse(dsn="http://127.0.0.1:1"),
        feedback=Feedback(key="a key of the tests only"), fleet=Fleet(router_url="http://127.0.0.1:1"),
    )  # fmt: skip
    services = build(settings, ROLES)._extra_services
    assert len(services) == 11
    for service in services:
        await service.stop()


def test_a_start_that_fails_says_why_and_nothing_else(tmp_path: Path) -> None:
    worker = Worker("nowhere", tmp_path, {"POINTSMAN_KAFKA_BOOTSTRAP": "127.0.0.1:1"})
    with pytest.raises(WorkerFailed, match="ended with 1"):
        worker.start().await_ready()
    errors = [json.loads(line) for line in worker.log.read_text().splitlines() if '"ERROR"' in line]
    assert "Unable to bootstrap" in errors[-1]["message"]
    assert "AttributeError" not in worker.log.read_text()


def _services(roles: list[Role]) -> list[str]:
    somewhere = Settings(kafka=Kafka(bootstrap="127.0.0.1:1"), clickhouse=ClickHouse(dsn="http://127.0.0.1:1"))
    return [type(service).__name__ for service in build(somewhere, roles)._extra_services]
