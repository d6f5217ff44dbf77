"""The fleet lane: findings, keyed by the alert's identity, to alerts."""

from detectors.detections import Detections
from detectors.fleet import FleetPartition
from detectors.suppressions import Suppressions
from detectors.thresholds import Thresholds
from schemas.topics import FINDINGS, FLEET_CHECKPOINTS
from streams.lanespec import LaneSpec
from streams.settings import Settings


def spec(
    settings: Settings, detections: Detections, suppressions: Suppressions, thresholds: Thresholds
) -> LaneSpec:
    """The lane as the settings want it."""
    fleet = settings.fleet

    def make(partition: int) -> FleetPartition:
        return FleetPartition.build(
            detections, thresholds, transplants=bool(fleet.router_url), partition=partition,
            suppressions=suppressions, resend_seconds=fleet.resend_seconds,
        )  # fmt: skip

    return LaneSpec(
        name="fleet",
        source=FINDINGS,
        checkpoints=FLEET_CHECKPOINTS,
        group=fleet.group,
        make=make,
        checkpoint_seconds=settings.detect.checkpoint_seconds,
        checkpoint_events=settings.detect.checkpoint_events,
        tick_seconds=5.0,  # alerts resolve after minutes: ticks need not be denser
        session_timeout_ms=round(settings.kafka.session_seconds * 1000),
        instance_id=settings.kafka.instance_id or None,
    )
