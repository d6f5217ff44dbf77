"""One caller floods: as much again as all others together, all of it on one partition. It is measured apart."""

from loadtests.locustfiles.gateway import Due, Gateway, Making
from loadtests.traffic import Attack

FLOOD = "the flood's"
TIMES = 1.0  # of the rest's rate


class HotKey(Gateway):
    """Ordinary traffic, and the busiest caller many times over."""

    @classmethod
    def script(cls, making: Making, number: int) -> tuple[list[Due], list[Attack]]:
        """The traffic, and the flood from the middle of the run on: the first half is what it is compared with."""
        due, attacks = super().script(making, number)
        caller = making.fleet.principals[0]
        habit = making.fleet.habit(caller)
        count = int(TIMES * cls.rate * making.seconds / 2)
        asks = []
        for n in range(count):
            ask = next(habit)
            ask.at = making.seconds / 2 * (1 + n / count)
            ask.input_tokens, ask.output_tokens = max(1, len(ask.text) // 4), 50
            asks.append(ask)
        flood, _ = cls.due(making, 500 + number, asks, FLOOD)
        return due + flood, attacks
