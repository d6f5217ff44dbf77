"""What holds under any log whatever: Hypothesis plays whoever writes every label."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.ratchet import Ratchet, RatchetConfig, TrustedLabel
from tests.detectors.ratchet.streams import DAY, Entry, config, label, logs, report, safe_labels

EXAMPLES = settings(max_examples=80, deadline=None)
CONFIGS = st.builds(
    config,
    start=st.integers(0, 5),
    ceiling=st.integers(5, 9),
    steps_per_day=st.integers(0, 3),
    cool_down_s=st.sampled_from([0.0, 3_600.0, DAY]),
    evidence_s=st.sampled_from([DAY, 90 * DAY]),
    soft_steps=st.integers(0, 2),
    least_labels=st.just(0),
    least_principals=st.just(0),
    least_tenants=st.just(0),
    specificity=st.sampled_from([1.0, 0.98]),
)


def test_safe_labels_loosen_one_step_at_a_time_up_to_the_ceiling() -> None:
    ratchet = Ratchet(config())
    moves = ratchet.follow(safe_labels(2_000))
    assert [(move.why, move.new_index) for move in moves] == [("evidence", i) for i in (4, 5, 6, 7)]
    assert ratchet.threshold == 0.7
    assert all(b.time - a.time >= DAY for a, b in pairwise(moves))
    assert all(move.e_value >= 1 / move.delta and move.risk_ucb < 2 * move.alpha for move in moves)
    assert all(move.benign_flagged == pytest.approx(1 - move.new_value, abs=0.05) for move in moves)


def test_misses_tighten_as_far_as_they_are() -> None:
    ratchet = Ratchet(config(start=7, tighten_steps=1))
    (move,) = ratchet.follow(label(i, score=0.25, unsafe=i % 2 == 0, who=i) for i in range(30))
    assert (move.why, move.old_index, move.new_index) == ("alarm", 7, 2)  # grid[2] flags them
    assert (ratchet.threshold, ratchet.epoch) == (0.2, 2)


def test_one_tenants_misses_do_not_tighten_a_ratchet_that_wants_two_votes() -> None:
    misses = [label(i, score=0.05, unsafe=True, who=3 * i) for i in range(200)]
    assert Ratchet(config()).follow(misses) == []
    assert Ratchet(config(votes=1)).follow(misses)[0].why == "alarm"


def test_votes_are_of_one_run_of_misses() -> None:
    """A miss of another tenant long ago is no vote for an alarm of today."""
    before = [label(0, score=0.05, unsafe=True, who=1)]
    quiet = [label(i, score=0.95, who=0) for i in range(300)]
    misses = [label(1_000 + i, score=0.05, unsafe=True, who=3 * i) for i in range(200)]
    rules = config(arl=10_000, ceiling=3)
    assert Ratchet(rules).follow([*before, *quiet, *misses]) == []
    assert Ratchet(rules).follow([*quiet, *misses[:20], *before, *misses[20:]])[0].why == "alarm"


def test_a_loosening_that_is_approved_late_does_not_silence_an_alarm() -> None:
    ratchet = Ratchet(config(arl=2_000))
    log = safe_labels(200)
    for entry in log:
        ratchet.take(entry)
    late = ratchet.decision(log[-1].time)
    assert late is not None
    for i in range(40):
        ratchet.take(label(log[-1].time + i, score=0.05, unsafe=True, who=i))
    ratchet.apply(late)
    assert ratchet.base == 4
    due = ratchet.decision(log[-1].time + 50)
    assert due is not None
    assert due.why == "alarm"


def test_at_the_floor_an_alarm_is_said_to_be_stuck() -> None:
    ratchet = Ratchet(config(start=0))
    ratchet.follow(label(i, score=-1.0, unsafe=True, who=i) for i in range(50))
    assert ratchet.stuck
    assert ratchet.base == 0


def test_what_the_judge_could_not_say_counts_against_loosening_only() -> None:
    unknown = [label(i * 600.0, score=0.35, unsafe=None, who=i) for i in range(400)]
    assert Ratchet(config()).follow(unknown) == []
    mixed = [label(i * 600.0, score=0.35, unsafe=None if i % 4 == 0 else False, who=i) for i in range(2_000)]
    assert Ratchet(config()).follow(mixed) == []


def test_few_principals_or_tenants_loosen_nothing() -> None:
    crowd = safe_labels(1_000)
    same = [TrustedLabel(time=x.time, tenant_id="t", principal_hash=x.principal_hash, score=0.0, unsafe=False)
            for x in crowd]  # fmt: skip
    assert Ratchet(config()).follow(same) == []
    few = [label(x.time, 0.0, False, i % 2) for i, x in enumerate(crowd)]
    assert Ratchet(config()).follow(few) == []


def test_all_epochs_together_have_delta() -> None:
    rules = config(evidence_s=5 * DAY, ceiling=9, cool_down_s=2 * DAY)
    ratchet = Ratchet(rules)
    moves = ratchet.follow(safe_labels(2_000))
    assert {move.epoch for move in moves} >= {1, 2}
    assert all(move.delta == pytest.approx(rules.delta * 6 / (math.pi * move.epoch) ** 2) for move in moves)
    assert ratchet.epoch == 3  # 14 days


def test_untrusted_reports_tighten_softly_and_expire() -> None:
    ratchet = Ratchet(config(soft_steps=1))
    moves = ratchet.follow(report(i, who=i) for i in range(500))
    assert [(move.why, move.new_value) for move in moves] == [("untrusted", 0.2)]
    assert (ratchet.base, ratchet.threshold) == (3, 0.2)
    moves = ratchet.follow([report(DAY + 600, who=1)])
    assert [(move.why, move.new_value) for move in moves] == [("expiry", 0.3)]
    assert ratchet.follow(report(1.5 * DAY + i, who=i) for i in range(500)) == []  # it rests as long again
    assert ratchet.follow(report(3 * DAY + i, who=i) for i in range(500))[0].why == "untrusted"


def test_audits_confirm_what_was_reported() -> None:
    ratchet = Ratchet(config(soft_steps=1, tighten_steps=1))
    ratchet.follow(report(i, score=0.25, who=i) for i in range(20))
    assert ratchet.threshold == 0.2
    ratchet.follow(label(100 + i, score=0.25, unsafe=True, who=i) for i in range(20))
    assert (ratchet.base, ratchet.soft) == (2, 0)
    assert ratchet.decision(10 * DAY) is None  # nothing is left to expire


def test_untrusted_steps_stop_at_the_benign_budget() -> None:
    ratchet = Ratchet(config(benign_budget=0.5))
    ratchet.follow(safe_labels(20, step=1.0))  # 80 % of safe requests would be flagged at 0.2
    assert ratchet.follow(report(100 + i, who=i) for i in range(500)) == []


@given(CONFIGS, logs())
@EXAMPLES
def test_envelope_and_daily_cap_hold_whoever_writes_the_labels(rules: RatchetConfig, log: list[Entry]) -> None:
    ratchet = Ratchet(rules)
    highest, rises = rules.start, list[float]()
    for entry in log:
        for move in ratchet.follow([entry]):
            assert (move.new_value > move.old_value) == (
                move.direction == "loosen"
            ) or move.old_index == move.new_index
        assert 0 <= ratchet.index <= ratchet.base <= rules.ceiling
        assert 0 <= ratchet.soft <= rules.soft_steps
        if ratchet.index > highest:
            assert ratchet.index == highest + 1
            highest = ratchet.index
            rises.append(max(x.time for x in log[: log.index(entry) + 1]))
    for i, time in enumerate(rises):
        assert sum(time <= other < time + DAY for other in rises[i:]) <= rules.steps_per_day


@given(CONFIGS, logs(trusted=False))
@EXAMPLES
def test_untrusted_reports_alone_never_loosen(rules: RatchetConfig, log: list[Entry]) -> None:
    ratchet = Ratchet(rules)
    for entry in log:
        ratchet.follow([entry])
        assert ratchet.base == rules.start
        assert ratchet.index <= rules.start


@given(CONFIGS, logs(), st.integers(0, 10))
@EXAMPLES
def test_untrusted_reports_never_help_a_loosening(rules: RatchetConfig, log: list[Entry], every: int) -> None:
    """With reports put in between, the base is what it is without them, and the threshold never above it."""
    trusted = [entry for entry in log if isinstance(entry, TrustedLabel)]
    alone, crowded = Ratchet(rules), Ratchet(rules)
    now = -math.inf
    for i, entry in enumerate(trusted):
        now = max(now, entry.time)
        alone.follow([entry])
        crowded.follow([entry])
        crowded.follow(report(now, score=-1.0, who=i + j) for j in range(every))
        assert crowded.base == alone.base
        assert crowded.index <= alone.index


@given(CONFIGS, logs(), st.floats(0, 400 * DAY))
@EXAMPLES
def test_silence_holds(rules: RatchetConfig, log: list[Entry], later: float) -> None:
    ratchet = Ratchet(rules)
    ratchet.follow(log)
    now = max(entry.time for entry in log)
    for time in (now + 1e-3, now + later + 1, now + 2 * later + 2):
        move = ratchet.decision(time)
        if move is not None:
            assert move.why == "expiry" or move.direction == "tighten"
            assert move.new_index <= ratchet.base
            ratchet.apply(move)


@given(CONFIGS, logs(), st.data())
@EXAMPLES
def test_a_replay_cut_anywhere_gives_the_same_state(
    rules: RatchetConfig, log: list[Entry], data: st.DataObject
) -> None:
    whole = Ratchet(rules)
    moves = whole.follow(log)
    cut = data.draw(st.integers(0, len(log)))
    first = Ratchet(rules)
    before = first.follow(log[:cut])
    state = first.snapshot()
    assert len(state) <= 4_096
    second = Ratchet.restore(rules, state)
    assert second.snapshot() == state
    assert before + second.follow(log[cut:]) == moves
    assert second.snapshot() == whole.snapshot()


def test_the_largest_state_is_below_4_kb() -> None:
    rules = config(grid=tuple(i / 40 for i in range(32)), ceiling=31, steps_per_day=24, cool_down_s=0.0)
    ratchet = Ratchet(rules)
    ratchet.follow(safe_labels(2_000))
    assert ratchet.base == 31
    assert len(ratchet.snapshot()) <= 4_096


def test_a_move_that_is_out_of_date_is_refused() -> None:
    ratchet = Ratchet(config())
    log = safe_labels(200)
    for entry in log:
        ratchet.take(entry)
    move = ratchet.decision(log[-1].time)
    assert move is not None
    ratchet.apply(move)
    with pytest.raises(ValueError, match="in force"):
        ratchet.apply(move)


def test_a_state_that_is_none_is_refused() -> None:
    state = Ratchet(config()).snapshot()
    for wrong in (b"", b"\x01" + state[1:], state[:-8], state[:40]):
        with pytest.raises(ValueError, match="state"):
            Ratchet.restore(config(), wrong)


def test_a_ceiling_that_comes_down_takes_the_threshold_with_it() -> None:
    ratchet = Ratchet(config())
    ratchet.follow(safe_labels(2_000))
    assert Ratchet.restore(config(ceiling=5), ratchet.snapshot()).threshold == 0.5


@pytest.mark.parametrize(
    "changed",
    [{"alpha": 0.01}, {"epsilon": 0.05}, {"specificity": 0.9}, {"weight_max": 2.0},
     {"grid": tuple(i / 10 + 0.05 for i in range(10))}],
)  # fmt: skip
def test_what_was_bet_under_other_figures_is_no_evidence(changed: dict[str, object]) -> None:
    """At the old alpha of 10 % the next step is due; at 1 % nothing is known."""
    ratchet = Ratchet(config())
    log = safe_labels(250)
    for entry in log:
        ratchet.take(entry)
    assert ratchet.decision(log[-1].time) is not None
    again = Ratchet.restore(config(**changed), ratchet.snapshot())
    assert again.decision(log[-1].time) is None
    assert again.threshold <= ratchet.threshold
    assert again.epoch == ratchet.epoch + 1
    again.take(label(log[-1].time + 1, score=0.95))
    assert again.decision(log[-1].time + 1) is None


def test_a_grid_of_another_size_goes_on_at_what_is_not_looser() -> None:
    ratchet = Ratchet(config(benign_budget=1.0))
    ratchet.follow([*safe_labels(2_000), *(report(15 * DAY + i, who=i) for i in range(50))])
    assert ratchet.threshold == 0.6  # 0.7, less a soft step
    again = Ratchet.restore(config(grid=(0.1, 0.55, 0.65, 0.9), start=0, ceiling=3), ratchet.snapshot())
    assert (again.threshold, again.soft) == (0.55, 0)
    assert Ratchet.restore(config(grid=(0.8, 0.9), start=0, ceiling=1), ratchet.snapshot()).base == 0


def test_a_judge_found_worse_voids_what_was_bet_and_proposed_and_a_better_one_keeps_it() -> None:
    ratchet = Ratchet(config(sensitivity=0.8))
    log = safe_labels(250)
    for entry in log:
        ratchet.take(entry)
    move = ratchet.decision(log[-1].time)
    assert move is not None
    ratchet.set_sensitivity(0.9)
    better = ratchet.decision(log[-1].time)
    assert better is not None
    assert (better.new_index, better.e_value) == (move.new_index, move.e_value)
    ratchet.set_sensitivity(0.7)
    assert ratchet.decision(log[-1].time) is None
    with pytest.raises(ValueError, match="epoch"):
        ratchet.apply(move)
    again = Ratchet.restore(config(), ratchet.snapshot())
    assert again.config.sensitivity == 0.7
    again.take(label(log[-1].time))
    ratchet.take(label(log[-1].time))
    assert again.snapshot() == ratchet.snapshot()


@pytest.mark.parametrize(
    "rules",
    [{"grid": (0.0,)}, {"grid": (1.0, 0.0)}, {"grid": (0.0, float("inf"))}, {"start": 8}, {"ceiling": 10},
     {"alpha": 0.0}, {"delta": 1.0}, {"epsilon": 0.5}, {"sensitivity": 0.3, "specificity": 0.6}],
)  # fmt: skip
def test_rules_that_make_no_sense_are_refused(rules: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        config(**rules)
