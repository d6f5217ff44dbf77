"""The fleet lane: findings, keyed by the alert's identity, to alerts."""

from detectors.alerting import Alerting
from detectors.detections import Detections
from detectors.discovery.campaigns import Campaigns
from detectors.fleet import FleetPartition
from detectors.spend.levels import Levels
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
        alerting = Alerting(detections, suppressions=suppressions, refresh_seconds=fleet.resend_seconds)
        campaigns = Campaigns(detections, thresholds, bool(fleet.router_url), partition)
        return FleetPartition(alerting, campaigns, Levels(detections, thresholds))

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
