"""Several times what a worker can do, for the first half of the run; then what it was made for."""

from loadtests.locustfiles.gateway import Due, Gateway, Making
from loadtests.traffic import Attack

TIMES = 12.0  # of a gateway's ordinary rate


class Overload(Gateway):
    """Gateways gone wild, then quiet again: the backlog must go by itself, and nothing be shed in silence."""

    @classmethod
    def script(cls, making: Making, number: int) -> tuple[list[Due], list[Attack]]:
        """The ordinary traffic of the whole run, and many times as much on top of its first half."""
        due, attacks = super().script(making, number)
        rate = (TIMES - 1) * cls.rate
        asks = making.fleet.asks(int(rate * making.seconds / 2), rate)
        more, _ = cls.due(making, 500 + number, asks)
        return due + more, attacks
