"""The Faust app of a process."""

from dataclasses import replace

from detectors.detections import load
from detectors.processor import Processor
from streams.app import Role, build
from streams.lanes import detect
from streams.settings import ClickHouse, Kafka, Settings


def test_each_process_has_an_app_id_of_its_own_and_the_lanes_groups_are_shared() -> None:
    """With a shared id a restart waited a minute for the old session, and control topics were split."""
    settings = Settings(kafka=Kafka(bootstrap="127.0.0.1:1"))
    first, second = build(settings, ["detect"]), build(settings, ["detect"])
    assert first.conf.id != second.conf.id
    assert settings.detect.group not in (first.conf.id, second.conf.id), "two assignors in one group: no partitions"
    assert not first.conf.web_enabled
    assert not first.conf.worker_redirect_stdouts


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


def _services(roles: list[Role]) -> list[str]:
    somewhere = Settings(kafka=Kafka(bootstrap="127.0.0.1:1"), clickhouse=ClickHouse(dsn="http://127.0.0.1:1"))
    return [type(service).__name__ for service in build(somewhere, roles)._extra_services]
