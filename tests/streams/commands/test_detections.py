"""`pointsman detections` on a folder of one's own."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from detectors.detections import SHIPPED, shipped
from streams.cli import main


def run(*arguments: str) -> Result:
    return CliRunner(env={"POINTSMAN_FLEET_DETECTIONS": None}).invoke(main, ["detections", *arguments])


def own(folder: Path, old: str = "", new: str = "") -> str:
    text = (SHIPPED / "novel_text.yml").read_text()
    assert old in text
    (folder / "own.yml").write_text(text.replace(old, new, 1))
    return str(folder)


def test_ls_says_where_each_is_from(tmp_path: Path) -> None:
    listed = json.loads(run("ls", own(tmp_path), "--json").stdout)
    assert [entry["rule_id"] for entry in listed] == sorted(detection.rule_id for detection in shipped())
    assert {entry["from"] for entry in listed if entry["rule_id"] == "novel_text"} == {str(tmp_path)}
    assert {entry["from"] for entry in listed if entry["rule_id"] != "novel_text"} == {"shipped"}
    assert "by trigger_id: event_count, 1 or more known_trigger" in run("ls").stdout


def test_test_passes_and_counts(tmp_path: Path) -> None:
    told = json.loads(run("test", own(tmp_path), "--json").stdout)
    assert told["failed"] == []
    assert told["detections"] == len(list(shipped()))


def test_a_failed_test_is_told_and_is_status_1(tmp_path: Path) -> None:
    failed = run("test", own(tmp_path, "timespan: ", "timespan: 1s #"))
    assert failed.exit_code == 1
    assert "novel_text: " in failed.stderr
    assert "it does not alert" in failed.stderr


def test_a_bad_file_is_told_with_its_line(tmp_path: Path) -> None:
    result = run("test", own(tmp_path, "LogTypes:", "Logtypes:"))
    assert result.exit_code == 1
    assert f"{tmp_path / 'own.yml'}:3: unknown key `Logtypes`" in result.stderr
