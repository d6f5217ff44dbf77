"""`make eval` in short, and what its figures rest on."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from detectors.novelty.training.fit import read_benign
from loadtests.attacks import text as training
from loadtests.attacks import unseen
from loadtests.evaluations import benign, report
from loadtests.evaluations.__main__ import main
from loadtests.evaluations.novelty import KINDS
from loadtests.evaluations.page import Check
from loadtests.evaluations.shares import of_counts, over_triggers
from loadtests.prompts import data_dir

needs_data = pytest.mark.skipif(data_dir() is None, reason="needs POINTSMAN_DATA")


def test_uses_of_one_trigger_are_no_more_evidence_than_one() -> None:
    rng = np.random.default_rng(1)
    fared = rng.random(40) < 0.5
    once = over_triggers(fared, np.arange(40))
    often = over_triggers(np.repeat(fared, 25), np.repeat(np.arange(40), 25))
    assert (often.share, often.n) == (once.share, 40)
    assert (often.low, often.high) == (once.low, once.high)
    apart = over_triggers(np.repeat(fared, 25), np.arange(1000))
    assert apart.high - apart.low < 0.4 * (once.high - once.low)


def test_where_all_fare_alike_the_interval_still_has_a_width() -> None:
    share = over_triggers(np.ones(60, np.bool_), np.repeat(np.arange(20), 3))
    assert share == of_counts(20, 20)
    assert 0.8 < share.low < 0.9


def test_a_target_is_a_bound_from_its_side() -> None:
    assert Check("", 0.9, 0.8).met
    assert not Check("", 0.7, 0.8).met
    assert not Check("", 0.9, 0.8, at_most=True).met


def test_generators_are_on_one_side_only() -> None:
    made = {make.__module__ for make in unseen.GENERATORS.values()}
    assert made == {unseen.__name__}
    assert not hasattr(unseen, "Material")
    assert {name for names in KINDS.values() for name in names} == set(training.FAMILIES)


@needs_data
def test_sources_are_on_one_side_only() -> None:
    data = data_dir()
    assert data is not None
    held = benign.held_back(data)
    sources = {document.group.removeprefix("own/") for document in read_benign(data / "benign_prompts.jsonl")}
    assert {row.source for row in held} == set(benign.HELD_BACK) <= sources
    assert any(row.borderline for row in held)


def test_many_pieces_are_of_a_prompts_length() -> None:
    pieces = list(benign.many(3_000))
    assert len(pieces) == 3_000
    assert min(map(len, pieces)) >= 20
    assert max(map(len, pieces)) <= 900


@needs_data
def test_short_form_measures_every_part_and_makes_the_page(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--short", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    found = report.read(tmp_path / "report.json", short=True)
    assert found.triggers is not None
    assert found.triggers.found[1_000]["exact"].share == 1.0
    assert found.triggers.falsely[10_000].n > 2_000
    assert found.semantic is not None
    assert found.semantic.at_rate["static"]["verbatim"].share == 1.0
    assert found.novelty is not None
    for detector in ("novelty", "all detectors"):
        recalls = found.novelty.families[detector]
        assert recalls["gadgets, uniform"].by_rate["0.01"].share > 0.3  # chance is 0.01
        assert {"fluent phrases", "R2A-like", "GCG, published", "catalogued, exact"} < set(recalls)
    assert found.novelty.families["all detectors"]["catalogued, exact"].by_rate["0.001"].share == 1.0
    assert found.novelty.benign["all"].n == len(benign.held_back(data_dir() or Path()))
    assert found.speed is not None
    assert len(found.speed.rounds) == 5
    assert "exact, 10,000 entries" in result.output
    assert report.read(tmp_path / "report.json", short=False).triggers is None  # a full run keeps nothing of it

    result = CliRunner().invoke(main, ["--short", "--page", "--out", str(tmp_path), "--docs", str(tmp_path)])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "evaluation.md").read_text()
    assert "| exact | 1.000 [" in page
    assert "too little is measured" in page
    for plot in ("evaluation-known.svg", "evaluation-unseen.svg"):
        assert plot in page
        assert (tmp_path / plot).read_text().startswith("<?xml")


def test_without_data_or_report_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTSMAN_DATA", str(tmp_path / "nowhere"))
    result = CliRunner().invoke(main, ["--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "POINTSMAN_DATA" in result.output
    result = CliRunner().invoke(main, ["--page", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "make eval" in result.output
    assert list(tmp_path.iterdir()) == []
