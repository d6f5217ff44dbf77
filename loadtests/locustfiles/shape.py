"""How many gateways there are at a moment of a run with `--users` and `--run-time`."""

from abc import abstractmethod
from typing import ClassVar

from locust import LoadTestShape


class Shape(LoadTestShape):
    """Of `--users` gateways so many as `users` says, until `--run-time` is over."""

    abstract: ClassVar[bool] = True
    use_common_options = True

    @abstractmethod
    def users(self, share: float, peak: int) -> int:
        """Gateways when so much of the run (0..1) is over; `peak`: all there may be."""

    def tick(self) -> tuple[int, float] | None:
        """Users, and how many a second may come or go: all at once."""
        options = self.runner.environment.parsed_options
        peak, share = int(options.num_users or 1), self.get_run_time() / float(options.run_time)
        return (self.users(share, peak), float(peak)) if share <= 1 else None
