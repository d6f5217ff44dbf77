"""Tenants' own thresholds where they are judged by: stricter for them, nothing for others."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.audited import AUDITED, for_tenant
from detectors.judge import Judge, JudgeLimits
from detectors.panel import build_panel
from detectors.thresholds import DEFAULTS, Thresholds
from schemas.events import AnyEvent
from schemas.topics import FINDINGS, VERDICTS
from schemas.verdicts import Reason, Verdict
from tests.factories import records, request, route

FLAG = "novelty.flag"


@given(
    st.floats(0.1, 10), st.dictionaries(st.sampled_from(["t1", "t2"]), st.floats(0.1, 10)),
    st.sampled_from([FLAG, "discovery.alike"]),
)  # fmt: skip
def test_a_tenants_own_is_never_looser_than_the_fleets(fleet: float, own: dict[str, float], name: str) -> None:
    """Of discovery.alike, lower is looser."""
    strict = max if name == "discovery.alike" else min
    thresholds = Thresholds()
    thresholds.swap({name: fleet}, 1, {(name, tenant): value for tenant, value in own.items()})
    assert thresholds[name] == thresholds.of(name, "t3") == fleet
    for tenant, value in own.items():
        assert thresholds.of(name, tenant) == strict(value, fleet)
    assert thresholds.strictest(name) == strict(fleet, *own.values(), fleet)


def test_an_own_value_of_no_threshold_is_refused() -> None:
    with pytest.raises(KeyError, match="no such"):
        Thresholds().swap({}, 1, {("nonsense", "t1"): 1.0})


@pytest.mark.parametrize(("stage", "limit", "flagged"), [("lexical", 28.0, True), ("static", 30.0, False)])
def test_what_a_catalogue_adds_stays_and_other_scales_are_left_alone(
    stage: str, limit: float, flagged: bool
) -> None:
    thresholds = Thresholds()
    thresholds.swap({}, 1, {("triggers.bits", "t1"): DEFAULTS["triggers.bits"] - 2})
    reason = Reason(detector="triggers", detector_version="1", score=29.0, threshold=30.0, kind="known_trigger",
                    stage=stage)  # fmt: skip
    found = for_tenant(reason, thresholds, "t1")
    assert (found.threshold, found.flagged) == (limit, flagged)
    assert for_tenant(reason, thresholds, "t2") is reason


def test_the_lane_judges_each_tenant_by_its_own() -> None:
    panel = build_panel(Thresholds())
    panel.thresholds.swap({}, 7, {(FLAG, "t1"): 0.0001})
    judge = Judge(panel, [], JudgeLimits())
    events: list[AnyEvent] = []
    for tenant in ("t1", "t2"):
        events += [request(tenant, tenant, tenant_id=tenant), route(tenant, tenant, tenant_id=tenant)]
    outputs = judge.apply(list(records(events)))
    found = [msgspec.json.decode(o.value, type=Verdict) for o in outputs if o.topic == VERDICTS.name]
    ours, theirs = sorted(found, key=lambda verdict: verdict.tenant_id)
    assert (ours.decision, theirs.decision) == ("flagged", "clean")
    assert _flagged(ours) == {("novelty", 0.0001)}
    assert {o.topic for o in outputs} >= {FINDINGS.name}
    assert theirs.thresholds_version == 7


def _flagged(verdict: Verdict) -> set[tuple[str, float]]:
    return {(reason.detector, reason.threshold) for reason in verdict.reasons if reason.flagged}


def test_every_audited_threshold_has_a_value_that_ships() -> None:
    assert {audited.parameter for audited in AUDITED.values()} <= set(DEFAULTS)
