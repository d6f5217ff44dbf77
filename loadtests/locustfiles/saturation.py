"""Steps of load, one gateway more each, until the service is no longer with it."""

from locust import LoadTestShape

from loadtests.locustfiles.gateway import Due, Gateway, Making
from loadtests.traffic import Attack


class Saturation(Gateway):
    """One step's worth."""

    rate = 200.0

    @classmethod
    def script(cls, making: Making, number: int) -> tuple[list[Due], list[Attack]]:
        """Each starts a step later than the one before, and needs traffic from then on."""
        left = 1 - number / int(making.options.num_users or 1)
        return super().script(making._replace(seconds=making.seconds * left), number)


class Steps(LoadTestShape):
    """From one gateway to all of them, each step as long as the others."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Users, all of a step at once."""
        options = self.runner.environment.parsed_options
        now, whole = self.get_run_time(), float(options.run_time)
        if now > whole:
            return None
        peak = int(options.num_users or 1)
        return min(peak, 1 + int(now / whole * peak)), 100.0
