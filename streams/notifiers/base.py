"""What a channel's notifier is."""

from collections.abc import Sequence
from typing import Protocol

from schemas.alerts import Alert


class RetryLater(Exception):
    """The receiver cannot take it now. `retry_after`: seconds that it asked for, None when it did not say."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Refused(Exception):
    """The receiver will never take this: not to be sent again as it is."""


class Notifier(Protocol):
    """Tells one receiver. Not told twice is the receiver's part: fingerprint (or alert_id) is the identity."""

    name: str

    @property
    def resend_seconds(self) -> float | None:
        """The receiver forgets a firing alert that is not sent again this often; None: it does not."""

    async def send(self, alerts: Sequence[Alert]) -> None:
        """Tell states of different alerts, all or none.

        Raises:
            RetryLater: try again, all of it.
            Refused: some of it is unacceptable.
        """

    async def close(self) -> None:
        """Give up connections."""
