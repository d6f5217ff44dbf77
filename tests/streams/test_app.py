"""The Faust app of a process."""

from streams.app import build
from streams.settings import Kafka, Settings


def test_each_process_has_an_app_id_of_its_own_and_the_lanes_groups_are_shared() -> None:
    """With a shared id a restart waited a minute for the old session, and control topics were split."""
    settings = Settings(kafka=Kafka(bootstrap="127.0.0.1:1"))
    first, second = build(settings, ["detect"]), build(settings, ["detect"])
    assert first.conf.id != second.conf.id
    assert settings.detect.group not in (first.conf.id, second.conf.id), "two assignors in one group: no partitions"
    assert not first.conf.web_enabled
    assert not first.conf.worker_redirect_stdouts
