"""What one channel knows of a partition's alerts: what is news to it, and what fires."""

from collections.abc import Iterable

from schemas.alerts import Alert

_MOST_ENDED = 10_000  # remembered, against states that a restarted fleet lane publishes again


class Ledger:
    """Made by reading the alerts topic in order. What is suppressed or inhibited is known, but not told."""

    def __init__(self) -> None:
        self._firing: dict[str, Alert] = {}
        self._told: dict[str, str] = {}  # alert_id -> severity, of firing ones that were to be told
        self._ended: dict[str, int] = {}  # alert_id -> sequence

    def take(self, alert: Alert) -> bool:
        """Note a state; whether it is one to tell: firing, a change of severity, or resolved; each once.

        What fired unsaid and is not suppressed any more is told then; an end is told where its beginning was.
        """
        before = self._firing.get(alert.alert_id)
        if alert.sequence <= (before.sequence if before else self._ended.get(alert.alert_id, 0)):
            return False
        if alert.status == "firing":
            self._firing[alert.alert_id] = alert
            if _quiet(alert) or self._told.get(alert.alert_id) == alert.severity:
                return False
            self._told[alert.alert_id] = alert.severity
            return True
        if alert.status == "resolved":
            self._firing.pop(alert.alert_id, None)
            self._ended[alert.alert_id] = alert.sequence
            if len(self._ended) > _MOST_ENDED:
                del self._ended[next(iter(self._ended))]
            told = self._told.pop(alert.alert_id, None) is not None
            return told or (before is None and not _quiet(alert))
        return False

    def firing(self) -> Iterable[Alert]:
        """The last state of each alert that fires and may be told, oldest first."""
        return (alert for alert in self._firing.values() if not _quiet(alert))


def _quiet(alert: Alert) -> bool:
    return bool(alert.suppressed_by or alert.inhibited_by)
