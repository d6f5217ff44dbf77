"""A file through both lanes: the same verdicts and alerts each time, whatever is in it."""

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from detectors.alerting import Alerting
from detectors.catalogue import shipped
from detectors.detections import SHIPPED
from detectors.detections import shipped as shipped_detections
from detectors.judge import Judge, JudgeLimits
from detectors.panel import build_panel
from detectors.registry import stream_detectors
from detectors.thresholds import Thresholds
from schemas.codec import encode
from schemas.events import AnyEvent
from streams.commands.replay import command
from streams.replay import Result, replay
from tests.factories import NOON_MS, at, outcome, request, route

PANEL = build_panel(Thresholds())
TRIGGER = next(trigger.text for trigger in shipped().triggers if trigger.kind != "semantic")


def run(lines: list[bytes]) -> Result:
    judge = Judge(PANEL, stream_detectors(PANEL.thresholds), JudgeLimits())
    return replay(lines, judge, Alerting(shipped_detections()), flush_ms=60_000)


def asked(number: int, seconds: float = 0.0, **fields: str) -> list[bytes]:
    """Request, route and outcome of one request, as lines."""
    rid, time = f"r{number}", NOON_MS + round(seconds * 1000)
    events: list[AnyEvent] = [
        request(rid, time_ms=time, **fields),
        route(rid, time_ms=time),
        outcome(rid, time_ms=time),
    ]
    return [encode(event) for event in events]


def test_a_known_trigger_becomes_a_verdict_a_finding_and_an_alert() -> None:
    lines = [line for n in range(20) for line in asked(n, n)]
    lines += asked(20, 20, prompt_text=f"{TRIGGER} What is the capital of Peru?")
    result = run(lines)
    assert len(result.verdicts) == 21
    assert [v.request_id for v in result.verdicts if v.decision == "flagged"] == ["r20"]
    (alert,) = [alert for alert in result.alerts if alert.alertname == "known_trigger"]
    assert (alert.status, alert.first_request_id) == ("firing", "r20")
    assert alert.finding_ids == [f.finding_id for f in result.findings if f.kind == "known_trigger"]


def test_requests_whose_route_never_comes_get_their_verdict_at_the_end() -> None:
    (verdict,) = run([encode(request())]).verdicts
    assert verdict.route_missing


def test_bad_lines_are_dead_letters_and_cost_nothing_else() -> None:
    result = run([b"", *asked(1), b"\xff", b"{}", *asked(2, 1)])
    assert [letter.reason for letter in result.deadletters] == ["empty", "not_utf8", "missing_field"]
    assert [letter.offset for letter in result.deadletters] == [0, 4, 5]
    assert len(result.verdicts) == 2


def test_a_clock_that_is_off_moves_no_other_lines_time() -> None:
    far = encode(request("far", event_time=at(NOON_MS + 10**10)))
    past = encode(request("past", event_time=at(NOON_MS - 10**10)))
    for place in (0, 9, 15):
        lines = [line for n in range(5) for line in asked(n, n)]
        lines[place:place] = [far, past]
        result = run(lines)
        assert {letter.reason for letter in result.deadletters} == {"time_off"}
        assert len(result.verdicts) == 5


def test_a_weekend_between_lines_is_no_fault() -> None:
    lines = [line for n in range(5) for line in asked(n, n)]
    lines += [line for n in range(5, 10) for line in asked(n, n + 200_000)]
    result = run(lines)
    assert not result.deadletters
    assert len(result.verdicts) == 10


@pytest.mark.parametrize("lines", [[], [b"rubbish"]])
def test_a_file_without_events(lines: list[bytes]) -> None:
    result = run(lines)
    assert (result.verdicts, result.findings, result.alerts) == ([], [], [])


@given(st.lists(st.one_of(st.binary(max_size=30), st.integers(0, 5)), max_size=12))
def test_two_runs_are_equal(items: list[bytes | int]) -> None:
    lines = [line for item in items for line in ([item] if isinstance(item, bytes) else asked(item, item))]
    assert msgspec.json.encode(run(lines)) == msgspec.json.encode(run(lines))


def test_the_command_writes_the_same_bytes_twice(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    events.write_bytes(b"\n".join(line for n in range(50) for line in asked(n, n)) + b"\n")
    written = []
    for name in ("one.json", "two.json"):
        out = tmp_path / name
        answer = CliRunner().invoke(command, [str(events), "--json", str(out)])
        assert answer.exit_code == 0, answer.output
        assert "50 verdicts" in answer.output
        written.append(out.read_bytes())
    assert written[0] == written[1]
    assert set(json.loads(written[0])) == {"verdicts", "findings", "alerts", "deadletters"}


def test_a_file_is_judged_as_the_settings_say(tmp_path: Path) -> None:
    rules, config = tmp_path / "rules.yml", tmp_path / "config.yml"
    rules.write_text('tenants: {"*": {regions: [eu-*]}}\n')
    quiet = tmp_path / "detections"
    quiet.mkdir()
    (quiet / "quiet.yml").write_text((SHIPPED / "known_trigger.yml").read_text() + "\nEnabled: false\n")
    config.write_text(f"detect: {{custody_rules: {rules}}}\nfleet: {{detections: {quiet}}}\n")
    lines = asked(1) + asked(2, 1, prompt_text=f"{TRIGGER} What is the capital of Peru?")
    lines[1] = encode(route("r1", time_ms=NOON_MS, provider_region="us-east-1"))
    events, out = tmp_path / "events.jsonl", tmp_path / "out.json"
    events.write_bytes(b"\n".join(lines))

    def alerts(*options: str) -> set[str]:
        answer = CliRunner().invoke(command, [str(events), "--json", str(out), *options])
        assert answer.exit_code == 0, answer.output
        return {alert["alertname"] for alert in json.loads(out.read_bytes())["alerts"]}

    assert alerts() == {"known_trigger"}
    assert alerts("--config", str(config)) == {"route_rule_broken"}


def test_what_is_no_event_is_named_by_its_line(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    events.write_bytes(b"\n".join([*asked(1), b"{", encode(request("r2")).replace(b'"t1"', b"7")]))
    answer = CliRunner().invoke(command, [str(events), "--json", str(tmp_path / "out.json")])
    assert f"{events}, line 4: $ not_json" in answer.stderr
    assert f"{events}, line 5: $.tenant_id wrong_type" in answer.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--json", "/nowhere/out.json"], "no folder"),
        (["--json", "-", "--router", "json:dumps"], "no router json:dumps"),
    ],
)
def test_what_cannot_work_is_said_at_once(tmp_path: Path, options: list[str], said: str) -> None:
    events = tmp_path / "events.jsonl"
    events.write_bytes(b"\n".join(asked(1)))
    answer = CliRunner().invoke(command, [str(events), *options])
    assert answer.exit_code == 1
    assert said in answer.output
