"""Two reports beside each other: what is worse is told, by the right side."""

import json
from pathlib import Path

from click.testing import CliRunner

from loadtests.bench.compare import main

OLD = {
    "detect_over_literal": 100.0,
    "detect": {"requests_per_s": 1000.0, "cpu_us_per_request": 400.0, "rounds": [{"startup_s": 1.0}]},
    "scale": {"principals": {"few": 1000, "many": 1_000_000, "ratio": 1.1}},
    "startup_s": 5.0,
    "checkpoint_share": 0.05,
    "recovery": None,
    "machine": {"cpus": 2},
}


def _compare(folder: Path, new: dict[str, object]) -> tuple[int, str]:
    for name, report in (("old", OLD), ("new", new)):
        (folder / name).write_text(json.dumps(report))
    found = CliRunner().invoke(main, [str(folder / "old"), str(folder / "new")])
    return found.exit_code, found.output


def test_the_same_is_no_worse(tmp_path: Path) -> None:
    code, said = _compare(tmp_path, OLD)
    assert code == 0
    assert said.startswith("0 of 8 figures")


def test_less_of_a_rate_and_more_of_a_time_are_worse(tmp_path: Path) -> None:
    detect = {"requests_per_s": 800.0, "cpu_us_per_request": 500.0}
    new = {**OLD, "detect": detect, "startup_s": 4.0, "checkpoint_share": 0.052, "machine": {"cpus": 9}}
    code, said = _compare(tmp_path, new)
    assert code == 1
    told = {line.split()[1]: line.split()[0] for line in said.splitlines()[:-1]}
    assert told == {"detect.requests_per_s": "worse", "detect.cpu_us_per_request": "worse", "startup_s": "better"}
