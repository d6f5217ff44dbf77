"""A Locust user is a gateway: it publishes its share of the traffic when it is due, whatever the brokers do."""

import json
import time
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import gevent
import msgspec
from locust import User, events, tag, task

from loadtests.attacks.campaigns import KINDS, plant
from loadtests.fleet import Ask, Fleet
from loadtests.locustfiles.meter import Meter
from loadtests.prompts import data_dir
from loadtests.router import DifficultyRouter
from loadtests.traffic import START, Attack, attacks_in, score_all
from loadtests.traffic import events as events_of
from schemas.events import AnyEvent
from schemas.topics import EVENTS

TICK_SECONDS = 0.01
LONGEST_SECONDS = 600.0  # of traffic made for a run without --run-time


class Raw(NamedTuple):
    """A record that is no event of a fleet's: what attackers and broken producers send."""

    value: bytes
    key: bytes
    headers: list[tuple[str, bytes]]
    name: str
    topic: str = EVENTS.name


class Due(NamedTuple):
    """What to publish, and when, in seconds from the gateway's start. `whose`: measured apart from the rest."""

    at: float
    what: AnyEvent | Raw
    whose: str = ""


class Making(NamedTuple):
    """What scripts are made of."""

    fleet: Fleet
    router: DifficultyRouter
    options: Any
    seconds: float


class Gateway(User):
    """`rate` requests a second, in the mean. Scenarios say what else is in their traffic."""

    abstract = True
    rate: ClassVar[float] = 50.0
    attack: ClassVar[str] = "known"  # the campaign that --attack-ratio plants
    attacked: ClassVar[tuple[float, float]] = (0.3, 0.8)  # from when to when, as shares of the run

    _scripts: ClassVar[deque[Sequence[Due]]] = deque()
    _meter: ClassVar[Meter]

    @classmethod
    def script(cls, making: Making, number: int) -> tuple[list[Due], list[Attack]]:
        """Make one gateway's traffic. Scenarios extend it."""
        asks = making.fleet.asks(int(cls.rate * making.seconds), cls.rate)
        return cls.due(making, number, asks + cls.attacks(making, number))

    @classmethod
    def attacks(cls, making: Making, number: int) -> list[Ask]:
        """Attacks among it, while it is `attacked`: a share of `--attack-ratio`, from the first gateway."""
        gateways = int(making.options.num_users or 1)
        planted = int(making.options.attack_ratio * cls.rate * making.seconds * gateways)
        if number or not planted:
            return []
        start, end = (share * making.seconds for share in cls.attacked)
        return plant(cls.attack, making.fleet, making.router, start, end - start, planted)

    @classmethod
    def due(cls, making: Making, number: int, asks: list[Ask], whose: str = "") -> tuple[list[Due], list[Attack]]:
        """Turn asks into events, with ids that no other gateway of the run has."""
        asks.sort(key=lambda ask: ask.at)
        seed = making.options.seed * 1000 + number
        sent = events_of(asks, score_all(making.router, asks), making.router, seed)
        return [Due(at, event, whose) for at, event in sent], attacks_in(asks, KINDS, seed)

    @tag("traffic")
    @task
    def play(self) -> None:
        """Publish the next script to its end, then stay."""
        began = time.time()
        for at, what, whose in self._scripts.popleft() if self._scripts else ():
            due = began + at
            while (wait := due - time.time()) > 0:
                gevent.sleep(max(wait, TICK_SECONDS))
            if isinstance(what, Raw):
                self._meter.send_raw(what.topic, what.key, what.value, what.headers, due, what.name)
            else:
                moved = what.event_time + timedelta(seconds=began) - _SINCE_1970
                self._meter.send(msgspec.structs.replace(what, event_time=moved), due, whose)
        while True:
            gevent.sleep(1)


_SINCE_1970 = timedelta(seconds=START.timestamp())


@events.init_command_line_parser.add_listener
def _add_options(parser: Any) -> None:
    parser.add_argument("--brokers", default="127.0.0.1:9092", help="host:port list of the Kafka brokers")
    parser.add_argument("--suffix", default="", help="after every topic's name")
    parser.add_argument("--attack-ratio", type=float, default=0.01, help="planted requests for each ordinary one")
    parser.add_argument("--tenants", type=int, default=40, help="of the fleet")
    parser.add_argument("--principals", type=int, default=300, help="of the fleet")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same traffic")
    parser.add_argument("--clickhouse", default="", help="its HTTP address, to see when rows are there")
    parser.add_argument("--database", default="pointsman", help="of the history")
    parser.add_argument("--report", default="", help="file for what the generator knows, msgpack")


@events.init.add_listener
def _make(environment: Any, runner: Any, **_: Any) -> None:
    """Make all traffic before the start: made meanwhile it would delay what is due."""
    options = environment.parsed_options
    # Repeats of a scenario are the same; processes of one run are not.
    index = int(getattr(runner, "worker_index", 0) or 0)
    fleet = Fleet(options.seed + index, data_dir(), options.principals, options.tenants)
    seconds = float(options.run_time or LONGEST_SECONDS)
    making = Making(fleet, DifficultyRouter.load("words"), options, seconds)
    found: list[Attack] = []
    for number in range(int(options.num_users or 1)):
        due, attacks = environment.user_classes[0].script(making, 100 * index + number)
        Gateway._scripts.append(sorted(due, key=lambda due: due.at))  # noqa: SLF001  of this module
        found += attacks
    Gateway._meter = Meter(  # noqa: SLF001
        environment, options.brokers, options.suffix, options.clickhouse, options.database
    )
    Gateway._meter.found.attacks = found  # noqa: SLF001
    gevent.sleep(0)  # the loop's clock stood still meanwhile, and timers set from it would run out early


@events.quitting.add_listener
def _finish(environment: Any, **_: Any) -> None:
    options = environment.parsed_options
    found = Gateway._meter.finish(Path(options.report) if options.report else None)  # noqa: SLF001
    environment.process_exit_code = 1 if found.failed else 0
    print(json.dumps({"delivered": found.delivered, "failed": found.failed, "late_p99_s": found.late_p99_s}))
