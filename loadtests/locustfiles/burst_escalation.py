"""Denial of wallet in a burst: one caller sends only the dearest, while the fleet's rate is trebled."""

from loadtests.locustfiles.gateway import Gateway
from loadtests.locustfiles.shape import Shape


class BurstEscalation(Gateway):
    """One caller among all escalates."""

    attack = "wallet"
    attacked = (0.4, 0.65)  # in the burst


class Burst(Shape):
    """A third of the gateways, then all of them for the middle third of the run, then a third again."""

    def users(self, share: float, peak: int) -> int:
        """See `Shape`."""
        return peak if 1 / 3 <= share < 2 / 3 else max(1, peak // 3)
