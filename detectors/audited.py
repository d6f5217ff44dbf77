"""The thresholds that labels can judge: of these a request's score and the threshold are on one scale.

A label says of one request whether its detector should have flagged it, and evidence moves a threshold by what
would have passed it. So the score has to be about that request (not about a route, a fleet, an hour), in every
verdict whether flagged or not. docs/feedback.md has why the others are left out.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from detectors.thresholds import Thresholds
from schemas.verdicts import Reason

NEAR_SCORE = 0.75  # of what flags, below which the matcher of known triggers gives no reason


class Audited(NamedTuple):
    """One detector's threshold, and which of its reasons have a score on that scale."""

    parameter: str
    kind: str
    stages: tuple[str, ...]  # of those reasons
    shifts: bool = False  # what flags is the threshold plus something that depends on the catalogue

    def covers(self, reason: Reason) -> bool:
        """Whether the reason's score is on the threshold's scale."""
        return reason.kind == self.kind and reason.stage in self.stages

    def score(self, score: float, reason: Reason | None, threshold: float) -> float:
        """A verdict's score, on the scale of a threshold that is in force."""
        if not self.shifts:
            return score
        if reason is None:
            return min(score, NEAR_SCORE * threshold)  # it is below that share of what flags
        return threshold + score - reason.threshold


AUDITED: Mapping[str, Audited] = MappingProxyType(
    {
        "difficulty": Audited("difficulty.spoofed", "spoofed_difficulty", ("",)),
        "novelty": Audited("novelty.flag", "novel_text", ("tagger",)),
        "steering": Audited("steering.evidence", "steering", ("residual", "pairs")),
        "triggers": Audited("triggers.bits", "known_trigger", ("lexical",), shifts=True),
    }
)


def for_tenant(reason: Reason, thresholds: Thresholds, tenant_id: str) -> Reason:
    """The reason by the tenant's own threshold, where that is stricter than the fleet's."""
    audited = AUDITED.get(reason.detector)
    if audited is None or not audited.covers(reason):
        return reason
    fleet, own = thresholds[audited.parameter], thresholds.of(audited.parameter, tenant_id)
    if own == fleet:
        return reason
    limit = reason.threshold + (own - fleet) if audited.shifts else own
    return msgspec.structs.replace(reason, threshold=limit, flagged=reason.score >= limit)
