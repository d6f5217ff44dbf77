"""What a generator leaves for whoever judges the run; without Locust, which patches whoever imports it."""

from collections import defaultdict

import msgspec

from loadtests.traffic import Attack

LATE_SECONDS = 0.1  # behind its schedule by more: the generator, not the service, is what was measured


class Generated(msgspec.Struct, kw_only=True):
    """What one generator leaves for whoever judges the run."""

    requests: list[str] = []  # event ids, acknowledged
    attacks: list[Attack] = []
    delivered: int = 0
    failed: int = 0  # not acknowledged, by error
    errors: dict[str, int] = {}
    started: float = 0.0
    ended: float = 0.0
    late_p99_s: float = 0.0  # from due to handed to the producer
    cpu_share: float = 0.0  # of one core
    verdict_at: list[tuple[float, float, str]] = []  # due, latency, whose: seconds
    alert_s: list[float] = []
    visible_s: list[float] = []

    @property
    def saturated(self) -> bool:
        """It was behind its own schedule: latencies are partly its own."""
        return self.late_p99_s > LATE_SECONDS


def by_group(verdict_at: list[tuple[float, float, str]]) -> dict[str, list[float]]:
    """Latencies in seconds by whose they are."""
    groups: dict[str, list[float]] = defaultdict(list)
    for _, took, whose in verdict_at:
        groups[whose].append(took)
    return groups
