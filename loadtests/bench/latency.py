"""From an event to its alert at half of the knee: `make load`'s scenarios `saturation` and `steady`, in short."""

from pathlib import Path

import msgspec

from loadtests.load import saturation
from loadtests.load.run import Plan, ground, run

SEED = 1
PER_GATEWAY = 50.0  # requests/s of a user of `steady`


class Figures(msgspec.Struct):
    """At half of the knee, or nearly: gateways come whole."""

    knee_per_s: float
    offered_per_s: float
    p50: float | None  # ms from when the event that made it fire was due; None: no alert
    p99: float | None
    alerts: int


def measure(out: Path, seconds: int) -> Figures:
    """Find the knee in so many seconds of steps, then load half of it for as long."""
    with ground() as where:
        plan = Plan(gateways=10, seconds=seconds, seed=SEED)
        _, raw = run(where, "saturation", plan, out)
        knee = saturation.curve(raw.generated, plan).knee_per_s
        gateways = max(1, round(knee / 2 / PER_GATEWAY))
        found, _ = run(where, "steady", Plan(gateways, seconds, SEED), out)
    alerts = found.alert_ms
    return Figures(
        knee_per_s=knee,
        offered_per_s=gateways * PER_GATEWAY,
        p50=alerts.p50 if alerts else None,
        p99=alerts.p99 if alerts else None,
        alerts=alerts.count if alerts else 0,
    )
