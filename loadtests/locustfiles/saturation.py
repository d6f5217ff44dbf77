"""Steps of load, one gateway more each, until the service is no longer with it."""

from loadtests.locustfiles.gateway import Due, Gateway, Making
from loadtests.locustfiles.shape import Shape
from loadtests.traffic import Attack


class Saturation(Gateway):
    """One step's worth."""

    rate = 200.0

    @classmethod
    def script(cls, making: Making, number: int) -> tuple[list[Due], list[Attack]]:
        """Each starts a step later than the one before, and needs traffic from then on."""
        left = 1 - number / int(making.options.num_users or 1)
        return super().script(making._replace(seconds=making.seconds * left), number)


class Steps(Shape):
    """From one gateway to all of them, each step as long as the others."""

    def users(self, share: float, peak: int) -> int:
        """See `Shape`."""
        return min(peak, 1 + int(share * peak))
