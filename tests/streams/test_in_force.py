"""What workers take from the topic of thresholds: signed, newer, theirs; whatever else may be in it."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from detectors.panel import PromptPanel, build_panel
from detectors.thresholds import DEFAULTS, Thresholds
from schemas.codec import encode
from schemas.signatures import derived
from schemas.thresholds import ThresholdUpdate
from schemas.topics import THRESHOLDS
from streams.control import InForce
from streams.replay import FileRecord
from tests.streams.gateways.test_thresholds import FLAG, KEY, OWN, ROUTE, chain


@pytest.fixture(scope="module")
def panel() -> PromptPanel:
    return build_panel(Thresholds())


def values(panel: PromptPanel, keys: dict[str, bytes] | None, *records: ThresholdUpdate | bytes) -> Thresholds:
    in_force = InForce(panel, keys)
    for offset, each in enumerate(records):
        value = each if isinstance(each, bytes) else encode(each)
        in_force.take(FileRecord(THRESHOLDS.name, offset, 0, value, b"k"))
    in_force.swap()
    return panel.thresholds


def test_links_in_force_are_taken_and_name_the_version(panel: PromptPanel) -> None:
    links = chain({}, {"mode": "proposed", "new_value": 0.5}, {"parameter": "triggers.share", "new_value": 0.4})
    found = values(panel, {"1": KEY}, *links)
    assert (found[FLAG], found["triggers.share"], found.version) == (0.99, 0.4, 3)


def test_a_tenants_own_value_is_judged_by_for_that_tenant_alone(panel: PromptPanel) -> None:
    own, back = chain({"scope": OWN, "new_value": 0.98}, {"scope": OWN, "new_value": 0.99})
    found = values(panel, {"1": KEY}, own)
    assert (found.of(FLAG, "t1"), found.of(FLAG, "t2"), found[FLAG], found.version) == (0.98, 0.995, 0.995, 1)
    assert values(panel, {"1": KEY}, back, own).of(FLAG, "t1") == 0.99
    assert values(panel, {"1": KEY}).of(FLAG, "t1") == 0.995


def test_what_is_not_signed_newer_or_theirs_changes_nothing(panel: PromptPanel) -> None:
    first, second, about_a_route, frozen = chain(
        {}, {"new_value": 0.98},
        {"parameter": "routing.guardrail", "scope": ROUTE, "new_value": 1.0},
        {"parameter": "frozen", "new_value": 1.0},
    )  # fmt: skip
    forged = chain({}, {}, {"new_value": 0.1}, key=derived("another", "updates"))[2]
    edited = msgspec.structs.replace(second, new_value=0.1, version=9)
    found = values(panel, {"1": KEY}, second, first, forged, edited, b"{", about_a_route, frozen)
    assert (found[FLAG], found.version) == (0.98, 2)
    assert found["triggers.share"] == DEFAULTS["triggers.share"]


@pytest.mark.parametrize(
    ("old", "new", "running", "over"), [(0.99, 0.9999, 0.9999, 0.99), (0.9999, 0.99, 0.99, 0.99)]
)
def test_an_override_that_is_over_loosens_no_more_though_nobody_says_so(
    panel: PromptPanel, old: float, new: float, running: float, over: float
) -> None:
    now, minute = datetime.now(UTC), timedelta(minutes=1)
    links = {"old_value": old, "new_value": new}
    assert values(panel, {"1": KEY}, *chain({**links, "expires_at": now + minute}))[FLAG] == running
    assert values(panel, {"1": KEY}, *chain({**links, "expires_at": now - minute}))[FLAG] == over


def test_without_a_key_the_topic_is_believed(panel: PromptPanel) -> None:
    unsigned = msgspec.structs.replace(chain({})[0], hash="", signature="")
    assert values(panel, None, unsigned)[FLAG] == 0.99
