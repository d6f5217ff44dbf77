"""`pointsman eval`: the report goes to a file or to standard output, and a bad row is named."""

import json
from pathlib import Path

from click.testing import CliRunner

from streams.commands.eval import command

ROWS = [
    {"family": "benign", "text": "How do I sort a list in Python?", "label": 0},
    {"family": "odd", "text": "zqx flurb gr0b ()) What is the capital of France?", "label": 1},
]


def cases(folder: Path, *lines: str) -> str:
    path = folder / "cases.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_the_report_in_a_file_and_on_standard_output(tmp_path: Path) -> None:
    given, out = cases(tmp_path, *map(json.dumps, ROWS)), tmp_path / "out.json"
    shown = CliRunner().invoke(command, [given, "--json", str(out)])
    assert shown.exit_code == 0, shown.output
    assert "benign: " in shown.output
    piped = CliRunner().invoke(command, [given, "--json", "-"])
    first, second = json.loads(out.read_text()), json.loads(piped.stdout)
    assert first.pop("us_per_prompt") > 0
    assert second.pop("us_per_prompt") > 0
    assert first == second
    assert first["n_benign"] == 1
    assert first["families"]["odd"]["n"] == 1


def test_a_bad_row_is_named(tmp_path: Path) -> None:
    given = cases(tmp_path, json.dumps(ROWS[0]), '{"family": "odd", "label": 1}')
    answer = CliRunner().invoke(command, [given])
    assert answer.exit_code == 1
    assert "2" in answer.output
    assert "text" in answer.output
