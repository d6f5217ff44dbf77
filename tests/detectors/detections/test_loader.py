"""Files of users: every mistake is an error that names the file, the line and the thing."""

from pathlib import Path

import pytest

from detectors.detections import DetectionError, load
from detectors.detections.examples import failures
from detectors.detections.loader import read

GOOD = """\
RuleID: many_callers
DisplayName: Many callers
LogTypes: [novel_text]
Detection:
  - {KeyPath: window, Condition: Exists}
Correlation:
  type: value_count
  group-by: [window]
  timespan: 1h
  condition: {field: principal_hash, gte: 2}
Severity: info
DynamicSeverities:
  - ChangeTo: critical
    Conditions:
      - {KeyPath: principals, Condition: IsGreaterThanOrEquals, Value: 3}
Runbook: |
  1. Who? `pointsman query first_use --param window={window}`
Tests:
  - Name: two
    ExpectedResult: true
    Severity: info
    Log:
      - {window: w, principal_hash: p1}
      - {window: w, principal_hash: p2, at: 2m}
  - Name: three, and worse
    ExpectedResult: true
    Severity: critical
    Log:
      - {window: w, principal_hash: p1}
      - {window: w, principal_hash: p2}
      - {window: w, principal_hash: p3, at: 5s}
  - Name: one, twice
    ExpectedResult: false
    Log:
      - {window: w, principal_hash: p1}
      - {window: w, principal_hash: p1}
  - Name: without a window
    ExpectedResult: false
    Log:
      - {principal_hash: p1}
      - {principal_hash: p2}
"""


def write(folder: Path, text: str, name: str = "own.yml") -> Path:
    (folder / name).write_text(text)
    return folder


def test_a_good_one_and_its_tests(tmp_path: Path) -> None:
    (detection,) = read(write(tmp_path, GOOD))
    assert not list(failures(detection))


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("DisplayName:", "Displayname:", 2, "unknown key `Displayname`"),
        ("  timespan: 1h", "  timespan: 1h\n  timeframe: 2h", 10, "unknown key `timeframe`"),
        ("{field: principal_hash, gte: 2}", "{field: principal_hash, lte: 2}", 10, "unknown key `lte`"),
        ("    Severity: info\n", "    Severity: info\n    Mocks: []\n", 22, "unknown key `Mocks`"),
        ("Severity: info\n", "Severity: high\n", 11, "Invalid enum value 'high' - at `Severity`"),
        ("LogTypes: [novel_text]", "LogTypes: [novel_txt]", 3, "there is no kind of finding `novel_txt`"),
        ("group-by: [window]", "group-by: [score]", 6, "findings have no text field `score`"),
        ("timespan: 1h", "timespan: an hour", 6, "'an hour' is no timespan"),
        ("type: value_count", "type: event_count", 6, "`field` belongs to the condition of a value_count"),
        ("type: value_count", "type: temporal", 10, "`condition` belongs to the counts"),
        ("KeyPath: principals", "KeyPath: principal", 1, "alerts have no field `principal`"),
        ("Value: 3", "Value: many", 15, "`Value` 'many' is none for IsGreaterThanOrEquals"),
        ("query first_use", "query first_uses", 16, "there is no query `first_uses`"),
        ("--param window=", "--param windows=", 16, "first_use has no parameter `windows`"),
        ("{window}`", "{windows}`", 16, "alerts have no text or time `{windows}`"),
        ("  1. Who?", "  - Who?", 16, "steps are numbered"),
        ("{window: w, principal_hash: p2, at: 2m}", "{windou: w}", 19, "findings have no field `windou`"),
        ("Severity: info\nDyn", "Severity: info\nSeverity: info\nDyn", 12, "`Severity` is there twice"),
        ("LogTypes: [novel_text]", "LogTypes: [novel_text", 4, ""),
        ("Severity: info\nDyn", "Dyn", 1, "missing required field `Severity`"),
        ("Correlation:", "GroupBy: [window]\nCorrelation:", 7, "no GroupBy or Threshold beside it"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, line: int, told: str) -> None:
    assert old in GOOD
    with pytest.raises(DetectionError) as error:
        read(write(tmp_path, GOOD.replace(old, new, 1)))
    (problem,) = error.value.problems
    assert problem.startswith(f"{tmp_path / 'own.yml'}:{line}: ")
    assert told in problem


def test_all_files_are_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, "", "a.yml")
    write(tmp_path, GOOD.replace("RuleID", "RuleId"), "b.yml")
    write(tmp_path, GOOD, "c.yml")
    write(tmp_path, GOOD, "d.yml")
    with pytest.raises(DetectionError) as error:
        read(tmp_path)
    assert [problem.split(":")[0] for problem in error.value.problems] == [
        str(tmp_path / name) for name in ("a.yml", "b.yml", "d.yml")
    ]
    assert error.value.problems[0] == f"{tmp_path / 'a.yml'}:1: it is empty"


def test_a_folder_of_ones_own_adds_replaces_and_takes_out(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "new.yml")
    write(tmp_path, GOOD.replace("many_callers", "novel_text"), "replaced.yml")
    write(tmp_path, GOOD.replace("many_callers", "unjudged\nEnabled: false"), "out.yml")
    held = load(tmp_path)
    assert held.get("many_callers")
    replaced = held.get("novel_text")
    assert replaced is not None
    assert replaced.display_name == "Many callers"
    assert held.get("unjudged") is None
    assert held.get("known_trigger")


def test_a_campaign_that_stands_for_no_alert_there_is(tmp_path: Path) -> None:
    text = GOOD.replace("Severity: info\nDyn", "Campaign: {Inhibits: [novel_txt]}\nSeverity: info\nDyn")
    with pytest.raises(DetectionError, match="many_callers: `Inhibits`: there is no detection `novel_txt`"):
        load(write(tmp_path, text))


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(DetectionError, match="there is no such folder"):
        load(tmp_path / "missing")


def test_a_test_that_fails_says_what_came_instead(tmp_path: Path) -> None:
    text = GOOD.replace("gte: 2", "gte: 3").replace("    Severity: critical", "    Severity: warning")
    (detection,) = read(write(tmp_path, text))
    assert [(failure.name, failure.why) for failure in failures(detection)] == [
        ("two", "it does not alert"), ("three, and worse", "its severity is critical"),
    ]  # fmt: skip


def test_the_example_of_the_page_holds(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "detections.md").read_text()
    (detection,) = read(write(tmp_path, page.split("```yaml\n")[1].split("```")[0]))
    assert not list(failures(detection))
