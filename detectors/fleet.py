"""The fleet lane on one partition of the findings topic: alerts, and beside them what many do together."""

from collections import Counter
from collections.abc import Mapping, Sequence

from detectors.alerting import Alerting
from detectors.detections import Detections
from detectors.discovery.campaigns import STATE as CAMPAIGNS
from detectors.discovery.campaigns import Campaigns
from detectors.processor import Output, Record
from detectors.spend.levels import STATE as LEVELS
from detectors.spend.levels import Levels
from detectors.suppressions import Suppressions
from detectors.thresholds import Thresholds


class FleetPartition:
    """A Processor (detectors/processor.py) of three: each takes from the log what is its own."""

    def __init__(self, alerting: Alerting, campaigns: Campaigns, levels: Levels) -> None:
        self.offset = 0
        self.counters: Counter[str] = Counter()
        self._alerting = alerting
        self._campaigns = campaigns
        self._levels = levels

    @classmethod
    def build(
        cls, detections: Detections, thresholds: Thresholds, *, transplants: bool, partition: int = 0,
        suppressions: Suppressions | None = None, resend_seconds: float = 60.0,
    ) -> "FleetPartition":  # fmt: skip
        """The three as they belong together. `transplants`: somebody answers them; seconds are of stream time."""
        return cls(
            Alerting(detections, suppressions=suppressions, refresh_seconds=resend_seconds),
            Campaigns(detections, thresholds, transplants, partition),
            Levels(detections, thresholds),
        )

    def apply(self, records: Sequence[Record]) -> list[Output]:
        """See `Processor.apply`. One record after the other, so that the outputs' order is not the batch's."""
        outputs = [
            output
            for record in records
            for part in (self._alerting, self._campaigns, self._levels)
            for output in part.apply([record])
        ]
        self._add_up()
        return outputs

    def _add_up(self) -> None:
        self.offset = self._alerting.offset
        self.counters = self._alerting.counters + self._campaigns.counters + self._levels.counters

    def waiting(self) -> bool:
        """See `Processor.waiting`."""
        return self._alerting.waiting() or self._levels.waiting()

    @property
    def firing(self) -> int:
        """How many alerts are firing."""
        return self._alerting.firing

    def holds(self) -> Mapping[str, int]:
        """See `Processor.holds`."""
        return {**self._alerting.holds(), **self._campaigns.holds(), **self._levels.holds()}

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """See `Processor.changes`."""
        return [*self._campaigns.changes(), *self._levels.changes(), *self._alerting.changes()]

    def load(self, key: bytes, value: bytes | None) -> None:
        """See `Processor.load`."""
        if key.startswith(CAMPAIGNS):
            self._campaigns.load(key, value)
        elif key.startswith(LEVELS):
            self._levels.load(key, value)
        else:
            self._alerting.load(key, value)

    def loaded(self) -> None:
        """See `Processor.loaded`."""
        self._alerting.loaded()
        self._campaigns.loaded()
        self._levels.loaded()
        self._add_up()

    def snapshot(self) -> dict[bytes, bytes]:
        """See `Processor.snapshot`."""
        return {**self._campaigns.snapshot(), **self._levels.snapshot(), **self._alerting.snapshot()}
