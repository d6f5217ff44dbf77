"""What one channel knows of a partition's alerts: what is news to it, and what fires."""

from collections.abc import Iterable

from schemas.alerts import Alert

_MOST_ENDED = 10_000  # remembered, against states that a restarted fleet lane publishes again


class Ledger:
    """Made by reading the alerts topic in order."""

    def __init__(self) -> None:
        self._firing: dict[str, Alert] = {}
        self._ended: dict[str, int] = {}  # alert_id -> sequence

    def take(self, alert: Alert) -> bool:
        """Note a state; whether it is one to tell: firing, a change of severity, or resolved; each once."""
        before = self._firing.get(alert.alert_id)
        if alert.sequence <= (before.sequence if before else self._ended.get(alert.alert_id, 0)):
            return False
        if alert.status == "firing":
            self._firing[alert.alert_id] = alert
            return before is None or before.severity != alert.severity
        if alert.status == "resolved":
            self._firing.pop(alert.alert_id, None)
            self._ended[alert.alert_id] = alert.sequence
            if len(self._ended) > _MOST_ENDED:
                del self._ended[next(iter(self._ended))]
            return True
        return False

    def firing(self) -> Iterable[Alert]:
        """The last state of each alert that fires, oldest first."""
        return self._firing.values()
