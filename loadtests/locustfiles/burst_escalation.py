"""Denial of wallet in a burst: one caller sends only the dearest, while the fleet's rate is trebled."""

from locust import LoadTestShape

from loadtests.locustfiles.gateway import Gateway


class BurstEscalation(Gateway):
    """One caller among all escalates."""

    attack = "wallet"


class Burst(LoadTestShape):
    """A third of the gateways, then all of them for the middle third of the run, then a third again."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Users and how many a second may come or go."""
        options = self.runner.environment.parsed_options
        now, whole = self.get_run_time(), float(options.run_time)
        if now > whole:
            return None
        peak = int(options.num_users or 3)
        return (peak if whole / 3 <= now < 2 * whole / 3 else max(1, peak // 3)), float(peak)
