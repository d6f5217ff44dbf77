"""Every stream detector, in the order in which they judge a case."""

from detectors.contract import StreamDetector
from detectors.coverage import Coverage
from detectors.custody import Custody
from detectors.custody.rules import Rules
from detectors.difficulty import Difficulty
from detectors.discovery import Discovery
from detectors.experts import Experts
from detectors.probing import Probing
from detectors.spend import Spend
from detectors.steering import Steering
from detectors.thresholds import Thresholds


def stream_detectors(thresholds: Thresholds, rules: Rules | None = None) -> list[StreamDetector]:
    """Fresh detectors for one partition; they read `thresholds` at every case, so that a swap is seen at once.

    `rules`: of custody; None: it judges what needs none.
    """
    difficulty = Difficulty(thresholds)
    steering = Steering(thresholds, difficulty.residual)  # first, so that both see one state of the models
    return [
        Discovery(thresholds),
        steering,
        difficulty,
        Spend(thresholds),
        Probing(thresholds),
        Custody(thresholds, rules or Rules()),
        Experts(thresholds),
        Coverage(thresholds),
    ]


def guard_detectors(thresholds: Thresholds, rules: Rules | None = None) -> list[StreamDetector]:
    """Those that can say something before a request is routed: one gateway's traffic is their log."""
    return [Probing(thresholds), Custody(thresholds, rules or Rules())]
