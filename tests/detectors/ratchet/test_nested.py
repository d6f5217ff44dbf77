"""Tenants inside the fleet: whose labels can move what."""

from hypothesis import given, settings

from detectors.ratchet import Nested, TrustedLabel
from tests.detectors.ratchet.streams import DAY, Entry, config, label, logs, report, safe_labels

RULES = config(least_labels=0, least_principals=0, steps_per_day=3)


def play(nested: Nested, log: list[Entry]) -> None:
    for entry in log:
        if isinstance(entry, TrustedLabel):
            nested.take(entry)
        else:
            nested.take_untrusted(entry)
        for name, _, move in nested.due(entry.time):
            nested.apply(name, move)


def states(nested: Nested) -> dict[str, bytes]:
    return {"": nested.fleet.snapshot()} | {name: own.snapshot() for name, own in nested.own.items()}


def of_tenant(log: list[Entry], tenant: int) -> list[Entry]:
    return [entry for entry in log if entry.tenant_id == f"t{tenant}"]


def test_a_tenant_has_the_fleets_threshold_until_its_own_labels_tighten_it() -> None:
    nested = Nested(RULES)
    play(nested, [label(i, score=0.05, unsafe=True, who=0) for i in range(100)])
    assert nested.threshold("t0") == 0.0
    assert nested.threshold("t1") == nested.threshold("") == nested.fleet.threshold == 0.3


def test_two_tenants_misses_tighten_all() -> None:
    nested = Nested(RULES)
    play(nested, [label(i, score=0.05, unsafe=True, who=i) for i in range(100)])
    assert nested.threshold("t9") == 0.0


def test_safe_labels_of_all_loosen_the_fleet() -> None:
    nested = Nested(RULES)
    play(nested, list(safe_labels(2_000)))
    assert nested.threshold("t0") == nested.threshold("") == 0.7


@given(logs())
@settings(max_examples=80, deadline=None)
def test_one_tenants_labels_loosen_nobody(log: list[Entry]) -> None:
    nested = Nested(RULES)
    for entry in of_tenant(log, 0):
        play(nested, [entry])
        for tenant in ("t0", "t1", ""):
            assert nested.threshold(tenant) <= 0.3
        assert nested.threshold("t1") == 0.3  # nor do they tighten another


@given(logs())
@settings(max_examples=80, deadline=None)
def test_no_tenant_is_looser_than_the_fleet_and_a_restored_state_goes_on(log: list[Entry]) -> None:
    nested = Nested(RULES)
    play(nested, log[: len(log) // 2])
    again = Nested(RULES)
    for name, state in states(nested).items():
        again.load(name, state)
    play(nested, log[len(log) // 2 :])
    play(again, log[len(log) // 2 :])
    assert states(again) == states(nested)
    assert all(nested.threshold(tenant) <= nested.fleet.threshold for tenant in ("t0", "t1", "t2", "new"))


def test_soft_steps_of_many_tenants_expire_by_name_whatever_was_restored_first() -> None:
    nested = Nested(RULES)
    play(nested, [label(i, who=who) for i, who in enumerate((2, 0, 1))])
    play(nested, [report(10 + i, who=i) for i in range(60)])
    assert all(nested.own[tenant].soft for tenant in ("t0", "t1", "t2"))
    again = Nested(RULES)
    for name, state in reversed(states(nested).items()):
        again.load(name, state)
    for each in (nested, again):
        waits = each.soft
        due = list(each.due(10 * DAY))
        assert [name for name, _, _ in due] == ["t0", "t1", "t2"]
        for name, _, move in due:
            each.apply(name, move)
        assert (waits, each.soft) == (True, False)
        assert list(each.due(11 * DAY)) == []


def test_tenants_are_bounded_and_the_rest_follow_the_fleet() -> None:
    nested = Nested(RULES, most_tenants=1)
    play(nested, [label(0, who=0), label(1, who=1), report(2, who=2)])
    assert set(nested.own) == {"t0"}
    assert nested.threshold("t1") == nested.fleet.threshold
