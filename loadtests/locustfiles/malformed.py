"""Broken and hostile records among the traffic: every kind that the codec must refuse, one in five."""

from loadtests import hostile
from loadtests.locustfiles.gateway import Due, Gateway, Making, Raw
from loadtests.traffic import Attack

SHARE = 0.2


class Malformed(Gateway):
    """A producer of rubbish beside the gateways."""

    @classmethod
    def script(cls, making: Making, number: int) -> tuple[list[Due], list[Attack]]:
        """The traffic, and the rubbish spread evenly over it."""
        due, attacks = super().script(making, number)
        count = int(SHARE * cls.rate * making.seconds)
        for n, (_, value, headers) in enumerate(hostile.records(count)):
            raw = Raw(value, f"hostile-{n % 20}".encode(), headers, "produce malformed")
            due.append(Due(n * making.seconds / count, raw))
        return due, attacks
