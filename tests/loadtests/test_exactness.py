"""Each finding is held against the log of the lane that wrote it: one taken for another's is 'unexpected' there."""

from typing import Any

import pytest

from detectors.kinds import KINDS
from loadtests.exactness import source_of
from schemas.topics import EVENTS, FEEDBACK, FINDINGS, Topic
from schemas.verdicts import Finding, Transplant
from tests.factories import at

ASKED = Transplant(test_id="t", text="odd words", probes=8)
ANSWERED = Transplant(test_id="t", text="odd words", probes=8, lifts=[1.0])


def finding(detector: str, kind: str, **fields: Any) -> Finding:
    """One of a detector."""
    return Finding(
        finding_id="f1", kind=kind, category=KINDS[kind], severity="info", time=at(0), labels={},
        detector=detector, detector_version="1", **fields,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("written", "source"),
    [
        (finding("spend", "denial_of_wallet"), EVENTS),
        (finding("spend", "price_levels"), EVENTS),
        (finding("spend", "fleet_spend"), FINDINGS),
        (finding("discovery", "trigger_candidate"), EVENTS),
        (finding("discovery", "unseen_trigger"), FINDINGS),
        (finding("discovery", "usual_window"), FINDINGS),
        (finding("discovery", "transplant", transplant=ASKED), FINDINGS),
        (finding("discovery", "transplant", transplant=ANSWERED), None),
        (finding("spend", "denial_of_wallet", campaign="a1"), FINDINGS),
        (finding("feedback", "feedback_poisoning"), FEEDBACK),
    ],
)
def test_a_finding_belongs_to_the_lane_that_wrote_it(written: Finding, source: Topic | None) -> None:
    assert source_of(written) is source
