"""The limit past which a lane stops rather than pour a topic away as dead letters."""


class DeadLetterLimitExceeded(RuntimeError):
    """Too large a share of a partition's records cannot be read: the gateways or this release are wrong."""


class DeadLetterLimit:
    """Watches one partition: at most `max_ratio` of any `window` successive records may be dead letters."""

    def __init__(self, max_ratio: float, window: int) -> None:
        self._max_ratio = max_ratio
        self._window = window
        self._records = 0
        self._letters = 0

    def add(self, records: int, letters: int, topic: str, partition: int) -> None:
        """Count a batch.

        Raises:
            DeadLetterLimitExceeded: the window is full and its ratio is over the limit.
        """
        self._records += records
        self._letters += letters
        if self._records < self._window:
            return
        ratio = self._letters / self._records
        if ratio > self._max_ratio:
            raise DeadLetterLimitExceeded(
                f"{self._letters} of the last {self._records} records of {topic}[{partition}] are dead letters"
                f" ({ratio:.0%}, limit {self._max_ratio:.0%}): stopped instead of pouring the topic away"
            )
        self._records = self._letters = 0
