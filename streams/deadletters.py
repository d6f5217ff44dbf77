"""The limit past which a lane stops rather than pour a topic away as dead letters."""


class DeadLetterLimitExceeded(RuntimeError):
    """Too large a share of a partition's records cannot be read: the gateways or this release are wrong."""


class DeadLetterLimit:
    """Watches one partition: beyond `min_count` dead letters, at most `max_ratio` of its records may be such."""

    def __init__(self, max_ratio: float, min_count: int) -> None:
        self._max_ratio = max_ratio
        self._min_count = min_count
        self._records = 0
        self._letters = 0

    def add(self, records: int, letters: int, topic: str, partition: int) -> None:
        """Count a batch.

        Raises:
            DeadLetterLimitExceeded: there are too many, in number and in ratio.
        """
        self._records += records
        self._letters += letters
        if self._letters >= self._min_count and self._letters > self._max_ratio * self._records:
            raise DeadLetterLimitExceeded(
                f"{self._letters} of the last {self._records} records of {topic}[{partition}] are dead letters"
                f" (limit {self._max_ratio:.0%}): stopped instead of pouring the topic away"
            )
        if self._records >= 10 * self._min_count:  # the distant past counts half
            self._records //= 2
            self._letters //= 2
