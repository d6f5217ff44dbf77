"""The scenarios: which locustfile, what it is told, and what is done to the service meanwhile."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from loadtests.rig import READY_SECONDS, Rig
from loadtests.workers import Worker


@dataclass(frozen=True, slots=True)
class Scene:
    """What a disturbance can get its hands on."""

    rig: Rig
    workers: list[Worker]
    seconds: float  # of the run
    is_over: Callable[[], bool]

    def wait(self, seconds: float) -> None:
        """Wait so long, or until the run is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.is_over():
            time.sleep(0.2)


class Scenario(NamedTuple):
    """`file` is in loadtests/locustfiles; `attack_ratio` is a default."""

    about: str
    file: str
    attack_ratio: float = 0.01
    disturb: Callable[[Scene], None] | None = None
    gateways: int = 4
    seconds: int = 60
    is_long: bool = False  # left out of `all`
    must_be_flat: bool = False  # memory, file handles and threads of the workers, in the second half
    settings: Mapping[str, str] = MappingProxyType({})  # of the workers


def _hold(scene: Scene) -> None:
    """No worker for the first half: a backlog grows, and is drained under the load of the second."""
    for worker in scene.workers:
        worker.stop()
    scene.wait(scene.seconds / 2)
    for worker in scene.workers:
        worker.start()
    for worker in scene.workers:
        worker.await_ready(READY_SECONDS)


def _storm(scene: Scene) -> None:
    """A worker more and less, again and again."""
    number = 0
    while not scene.is_over():
        number += 1
        guest = scene.rig.worker(f"guest{number}")
        try:
            guest.start().await_ready(READY_SECONDS)
            scene.wait(3.0)
        finally:
            guest.kill() if number % 2 else guest.stop()
        scene.wait(3.0)


SCENARIOS = MappingProxyType(
    {
        "steady": Scenario("a fleet's ordinary traffic", "steady"),
        # Long enough that a caller, and the windows that usually come back, have a past when the attack begins.
        "burst_escalation": Scenario("one caller's wallet attack in a burst of all", "burst_escalation",
                                     gateways=6, seconds=300),
        "trigger_campaign": Scenario("a catalogued trigger in a tenth of it", "trigger_campaign", 0.1),
        "unseen_campaign": Scenario("a gadget grown just now in a hundredth of it", "unseen_campaign", seconds=300),
        "poison_feedback": Scenario("labels of tickets that nobody drew", "poison_feedback", 0.02,
                                    settings={"POINTSMAN_FEEDBACK_KEY": "signs tickets of load tests",
                                              "POINTSMAN_FEEDBACK_MODE": "active"}),
        "malformed": Scenario("a fifth as many hostile records", "malformed"),
        "hot_key": Scenario("one caller floods from the middle on", "hot_key", 0.0),
        "backlog_drain": Scenario("no worker for the first half", "steady", 0.01, _hold),
        "rebalance_storm": Scenario("workers come and go all the time", "steady", 0.01, _storm),
        "saturation": Scenario("steps of load until it is too much", "saturation", 0.0, gateways=10),
        "overload": Scenario("more than it can do, then a pause: what becomes of it", "overload", 0.01),
        "soak": Scenario("the same for long: nothing may grow", "steady", 0.002,
                         seconds=3_600, is_long=True, must_be_flat=True),
    }
)  # fmt: skip
