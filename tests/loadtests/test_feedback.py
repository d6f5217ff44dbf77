"""The feedback simulation with tiny numbers: its parts are what they say, its rows and its page are whole."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from loadtests.feedback import page
from loadtests.feedback.errors import CASES, count
from loadtests.feedback.methods import Aci, OurRatchet, Pid, flipped, grid, methods
from loadtests.feedback.scores import made_up
from loadtests.feedback.simulation import Plan, Row, interval, play
from loadtests.feedback.world import ALPHA, ATTACKS, Attack, World
from streams.cli import main

SCORES = made_up(0)
NAMED = {attack.name: attack for attack in ATTACKS}
TINY = Plan(days=6, labels_per_day=120, made_up=True)


def world(name: str, days: int = 10, labels: int = 1_000) -> World:
    return World(SCORES, NAMED[name], 0, days, labels)


def test_a_world_is_the_same_for_a_seed() -> None:
    first, second = world("quiet, then burst").play(), world("quiet, then burst").play()
    assert all(np.array_equal(a.audits.score, b.audits.score) for a, b in zip(first, second, strict=True))
    assert all(np.array_equal(a.rows.unsafe, b.rows.unsafe) for a, b in zip(first, second, strict=True))


def test_the_oracle_is_at_alpha() -> None:
    played = world("none")
    share = played.play()[0].unsafe_share
    assert share * SCORES.missed(np.array([played.oracle()])) == pytest.approx(ALPHA, rel=0.01)


@pytest.mark.parametrize(
    ("name", "rows", "audits"),
    [("none", 1.0, 1.0), ("suppress", 0.4, 1.0), ("whitewash", 0.7, 1.0), ("cry wolf", 1.45, 1.0),
     ("dilution", 0.3, 1.0), ("judge fooled", 1.0, 0.6), ("sybils, 40 %", 0.5, 0.6)],
)  # fmt: skip
def test_attacks_change_the_labels_that_they_say(name: str, rows: float, audits: float) -> None:
    """Shares labelled unsafe, relative to those without an attack."""
    share = 0.1
    days = world(name, labels=4_000).play()
    seen = np.concatenate([day.rows.unsafe for day in days]).mean()
    assert seen == pytest.approx(rows * share, rel=0.15)
    seen = np.concatenate([day.audits.unsafe for day in days]).mean()
    assert seen == pytest.approx(audits * 0.95 * share, rel=0.15)


def test_labels_that_are_late_or_lost() -> None:
    days = world("delay and loss").play()
    assert [len(day.audits.score) for day in days[:3]] == [0, 0, 0]
    assert all(600 < len(day.audits.score) < 800 for day in days[3:])


def test_a_corrupted_judge_flips_its_share_and_only_misses() -> None:
    labels = world("none", labels=20_000).play()[0].audits
    after = flipped(labels, 1.0, 0.005)
    changed = labels.unsafe & ~after.unsafe
    assert changed.mean() == pytest.approx(0.005, rel=0.3)
    assert labels.score[changed].max() < 1.0
    assert not (after.unsafe & ~labels.unsafe).any()


def test_aci_and_pid_are_what_they_are_one_label_at_a_time() -> None:
    played = world("none")
    labels = played.play()[0].rows
    whole, steps = [rule(played, False) for rule in (Aci, Pid)], [rule(played, False) for rule in (Aci, Pid)]
    for method in whole:
        method._take(labels)
    for i in range(len(labels.score)):
        one = labels.part(np.arange(len(labels.score)) == i)
        for method in steps:
            method._take(one)
    assert [a.threshold for a in whole] == pytest.approx([b.threshold for b in steps])
    assert all(method.threshold != grid(SCORES)[0] for method in whole)


def test_the_ratchet_is_told_of_rows_only_as_reports() -> None:
    played = world("cry wolf", days=4, labels=3_000)
    ours = OurRatchet(played)
    for day in played.play():
        ours.learn(day)
    assert {move.why for move in ours.moves} >= {"untrusted"}
    assert ours.labels_used == 12_000


def test_every_method_has_its_own_name_and_a_run_is_whole() -> None:
    names = [method.name for method in methods(world("none"))]
    assert len(set(names)) == len(names) == 9
    runs = play(TINY, (NAMED["none"], 0))
    assert [run.method for run in runs] == names
    assert all(len(run.risk) == TINY.days and 0 <= run.benign_flagged <= 1 for run in runs)


def test_the_judge_owned_goes_to_the_floor_and_no_further() -> None:
    played = World(SCORES, Attack("own", "", cry_audits=1.0), 0, 3, 1_000)
    ours = OurRatchet(played)
    for day in played.play():
        ours.learn(day)
    assert ours.ratchet.stuck
    assert SCORES.flagged(ours.threshold) <= 0.05


def test_the_command_writes_rows_and_the_page_is_made_of_them(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    options = ["--seeds", "1", "--days", "6", "--labels", "120", "--made-up", "--processes", "1"]
    done = CliRunner().invoke(main, ["simulate", "feedback", "--json", str(out), *options])
    assert done.exit_code == 0, done.output
    rows = json.loads(out.read_bytes())
    assert {(row["attack"], row["method"]) for row in rows} >= {(attack.name, "ratchet") for attack in ATTACKS}
    wanted = {"miss_risk_end", "miss_risk_max", "benign_flagged", "loosened", "tightened", "labels_used"}
    assert all(wanted <= row.keys() for row in rows)
    found = [count(case, runs=10, labels=5) for case in CASES]
    page.write(msgspec.convert(rows, list[Row]), found, tmp_path)
    written = (tmp_path / "feedback-simulation.md").read_text()
    assert all(f"| {attack.name} |" in written for attack in ATTACKS)
    assert (tmp_path / page.MOST).stat().st_size > 1_000


def test_intervals_hold_the_mean() -> None:
    mean, low, high = interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert low + high == pytest.approx(4.0)
    assert high - mean == pytest.approx(4.303 / 3**0.5, rel=0.01)
    assert interval([5.0]) == (5.0, 5.0, 5.0)
