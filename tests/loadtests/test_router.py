"""The router must be a real one: better than chance on prompts it never saw, bounded, cached, tiers by score."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from loadtests import router as module
from loadtests.prompts import data_dir, labelled
from loadtests.router import TIERS, DifficultyRouter, Kind, held_out


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POINTSMAN_DATA", str(tmp_path))
    monkeypatch.setenv("POINTSMAN_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", ["words", "chars", "static"])
@pytest.mark.usefixtures("no_data")
def test_learns_the_designed_difficulty(kind: Kind) -> None:
    router = DifficultyRouter.load(kind)
    rows = held_out(labelled(None))
    scores = router.score([row.text for row in rows])
    assert roc_auc_score([row.hard for row in rows], scores) > 0.8
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.data
@pytest.mark.skipif(data_dir() is None, reason="POINTSMAN_DATA is absent")
@pytest.mark.parametrize("kind", ["words", "chars", "static"])
def test_learns_which_real_prompts_a_weak_model_fails_on(kind: Kind) -> None:
    rows = held_out(labelled(data_dir()))
    scores = DifficultyRouter.load(kind).score([row.text for row in rows])
    assert roc_auc_score([row.hard for row in rows], scores) > 0.65


@pytest.mark.usefixtures("no_data")
def test_trains_once_and_reads_the_cache_after(monkeypatch: pytest.MonkeyPatch) -> None:
    first = DifficultyRouter.load("words")
    monkeypatch.setattr(module, "_train", None)
    again = DifficultyRouter.load("words")
    texts = ["Prove it.", "", "hello", "\ud800"[:0] + "日本語 🚂"]
    np.testing.assert_array_equal(first.score(texts), again.score(texts))
    assert (again.version, again.boundaries) == (first.version, first.boundaries)


@pytest.mark.usefixtures("no_data")
def test_tiers_follow_the_boundaries() -> None:
    router = DifficultyRouter.load("words")
    cuts = list(router.boundaries.values())
    assert cuts == sorted(cuts)
    assert [router.tier(score).rank for score in (0.0, *cuts, 1.0)] == [0, 1, 2, 3, 3]
    easy, hard = router.route(
        ["What is boiling an egg. Plain language please.", "Prove a tight bound for ergodic averages."]
    )
    assert easy.tier.rank < hard.tier.rank
    assert len(router.score([])) == 0


def test_each_tier_costs_more_than_the_one_below() -> None:
    costs = [tier.cost(500, 200) for tier in TIERS]
    assert costs == sorted(costs)
    assert costs[-1] > 10 * costs[0]
