"""Detections as code: which findings are an alert, when, how grave, and what to do, one YAML file each.

The detect lane asks them where a finding belongs (`records`): a copy for each detection that reads it, keyed by the
alert's identity, so that one partition of the fleet lane has all of a group. The fleet lane asks them when a group
fires and how its alert reads (detectors/alerting.py).
"""

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from detectors.detections.loader import DetectionError, read
from detectors.detections.model import Detection
from detectors.kinds import fingerprint
from detectors.processor import Output
from schemas.codec import encode
from schemas.topics import FINDINGS
from schemas.verdicts import Finding

__all__ = ["SHIPPED", "Detection", "DetectionError", "Detections", "load", "shipped"]

SHIPPED = Path(__file__).parent / "shipped"


class Detections:
    """Those in force, by RuleID."""

    def __init__(self, detections: Iterable[Detection]) -> None:
        held = {detection.rule_id: detection for detection in detections}  # of one RuleID the last
        self._by_rule = {rule_id: detection for rule_id, detection in held.items() if detection.enabled}

    def __iter__(self) -> Iterator[Detection]:
        return iter(self._by_rule.values())

    def get(self, rule_id: str) -> Detection | None:
        """The one of this RuleID, if it is in force."""
        return self._by_rule.get(rule_id)

    def addressed(self, finding: Finding) -> list[Finding]:
        """The finding under each alert identity that it counts for; as it is, without labels, if there is none."""
        takers = [detection for detection in self if detection.takes(finding)]
        return [detection.addressed(finding) for detection in takers] or [finding]

    def records(self, finding: Finding) -> list[Output]:
        """The same as records of the findings topic. Without an alert it is still history's."""
        return [
            Output(FINDINGS.name, (fingerprint(f.labels) if f.labels else f.finding_id).encode(), encode(f))
            for f in self.addressed(finding)
        ]


def load(folder: Path | None = None) -> Detections:
    """Those that ship; over them those of a folder: the same RuleID replaces, `Enabled: false` takes out.

    Raises:
        DetectionError: see `loader.read`; or a campaign inhibits what is no detection.
    """
    held = [*read(SHIPPED), *(read(folder) if folder else ())]
    known = {detection.rule_id for detection in held}
    unknown = [
        f"{detection.rule_id}: `Inhibits`: there is no detection `{rule_id}`"
        for detection in held
        for rule_id in (detection.campaign.inhibits if detection.campaign else ())
        if rule_id not in known
    ]
    if unknown:
        raise DetectionError(unknown)
    return Detections(held)


@cache
def shipped() -> Detections:
    """Those that ship."""
    return load()
