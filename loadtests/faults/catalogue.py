"""Every fault by name: each does its harm, mends it, and returns; the crew's keeper restarts what ends of it."""

import asyncio
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

import psutil
from aiokafka import AIOKafkaProducer

from loadtests import hostile
from loadtests.proxy import Proxy
from loadtests.rig import PARTITIONS, READY_SECONDS, Crew, Rig
from loadtests.stream import Stream
from loadtests.workers import Worker
from schemas.topics import CHECKPOINTS, EVENTS, named
from streams.topics import alter_topic

SESSION_SECONDS = 6.0
CLOCK_STEP_S = 3_600.0
DISK_FULL, MEMORY_LIMIT = 243, 241  # ClickHouse: NOT_ENOUGH_SPACE, MEMORY_LIMIT_EXCEEDED


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault can get its hands on."""

    rig: Rig
    crew: Crew  # the first worker reaches the brokers through `proxy`
    stream: Stream
    proxy: Proxy
    rng: random.Random
    short: bool

    def victim(self) -> Worker:
        """Any worker."""
        return self.rng.choice(self.crew.workers)

    def lasts(self, short: float, long: float) -> None:
        """Let traffic go on for so long."""
        self.stream.play(short if self.short else long)


class Fault(NamedTuple):
    """`part` is what it harms: a combination takes at most one of each."""

    about: str
    part: Literal["worker", "broker", "engine", "input", "log", ""]
    run: Callable[[Scene], None]
    own_clock: bool = False  # the events topic takes the sender's timestamps


def _nothing(scene: Scene) -> None:
    scene.lasts(2, 5)


def _kill_any(scene: Scene) -> None:
    scene.victim().kill()
    scene.lasts(4, 10)


def _kill_in_turn(scene: Scene) -> None:
    for worker in scene.crew.workers * (1 if scene.short else 2):
        worker.kill()
        scene.stream.play(1 + 5 * scene.rng.random())


def _freeze(scene: Scene) -> None:
    worker = scene.victim()
    worker.signal(signal.SIGSTOP)
    try:
        scene.lasts(SESSION_SECONDS + 2, SESSION_SECONDS + 6)
    finally:
        worker.signal(signal.SIGCONT)


def _starve(scene: Scene) -> None:
    """Not a page more than it has: it must end, not limp."""
    psutil.Process(scene.victim().pid).rlimit(psutil.RLIMIT_AS, (1, 1))
    scene.lasts(6, 15)


def _cut_off(scene: Scene) -> None:
    scene.proxy.cut()
    try:
        scene.lasts(SESSION_SECONDS + 2, SESSION_SECONDS + 8)
    finally:
        scene.proxy.heal()


def _storm(scene: Scene) -> None:
    """Others come and go, in order and not."""
    for number in range(2 if scene.short else 5):
        guest = scene.rig.worker(f"guest{number}")
        try:
            guest.start().await_ready(READY_SECONDS)
            scene.stream.play(2 * scene.rng.random())
        finally:
            guest.kill() if number % 2 else guest.stop()


def _kill_broker(scene: Scene) -> None:
    node = scene.rng.randint(1, scene.rig.kafka.nodes)
    scene.rig.kafka.stop_node(node, kill=True)
    try:
        scene.lasts(5, 12)
    finally:
        scene.rig.kafka.start_node(node)


def _lose_majority(scene: Scene) -> None:
    nodes = scene.rng.sample(range(1, scene.rig.kafka.nodes + 1), 2)
    for node in nodes:
        scene.rig.kafka.stop_node(node, kill=True)
    try:
        scene.lasts(8, 30)
    finally:
        scene.rig.kafka.start_node(*nodes)


def _engine(short: float, long: float, kind: str, match: str = "INSERT", **what: int) -> Callable[[Scene], None]:
    def run(scene: Scene) -> None:
        scene.rig.misbehave(kind, match, **what)
        try:
            scene.lasts(short, long)
        finally:
            scene.rig.misbehave()

    return run


def _kill_engine(scene: Scene) -> None:
    """In the middle of whatever it was writing."""
    for _ in range(1 if scene.short else 3):
        scene.rig.engine.kill()
        scene.lasts(2, 4)
        scene.rig.engine.start()
        scene.lasts(1, 4)


def _poison(scene: Scene) -> None:
    """One of each kind to each partition, the too large and what aiokafka cannot decode with them."""
    topic = named(EVENTS, scene.rig.suffix)

    async def send() -> None:
        async with AIOKafkaProducer(**scene.rig.brokers, max_request_size=4 << 20) as producer:
            for partition in range(PARTITIONS):
                for _, value, headers in hostile.records(30):
                    await producer.send(topic, value, key=b"h", headers=headers, partition=partition)
                await producer.send(topic, hostile.TOO_LARGE, partition=partition)
                await hostile.send_undecodable(producer, topic, partition)

    asyncio.run(send())
    scene.lasts(1, 3)


def _flood(scene: Scene) -> None:
    """Hostile messages by the thousand, or by the million."""
    topic = named(EVENTS, scene.rig.suffix)

    async def send() -> None:
        async with AIOKafkaProducer(**scene.rig.brokers, linger_ms=20, max_batch_size=1 << 18) as producer:
            for n, (_, value, headers) in enumerate(hostile.records(10_000 if scene.short else 1_000_000)):
                await producer.send(topic, value, key=str(n % 97).encode(), headers=headers)
            await producer.flush()

    asyncio.run(send())


def _step_clocks(scene: Scene) -> None:
    """An hour ahead and back, the brokers' clock and the gateways'; then a gateway that is days off."""
    stream = scene.stream
    for brokers, gateways in ((CLOCK_STEP_S, 0.0), (0.0, 0.0), (-60.0, CLOCK_STEP_S), (0.0, -CLOCK_STEP_S)):
        stream.clock_off_s, stream.gateways_off_s = brokers, gateways
        scene.lasts(2, 4)
    stream.clock_off_s = stream.gateways_off_s = 0.0
    scene.lasts(1, 3)


_COMPACT = {
    "segment.ms": "1000", "segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.001",
    "max.compaction.lag.ms": "100", "min.compaction.lag.ms": "0", "delete.retention.ms": "60000",
}  # fmt: skip


def _compact(scene: Scene) -> None:
    """The cleaner never rests, and workers die meanwhile: what they reload is what it has left."""
    topic = named(CHECKPOINTS, scene.rig.suffix)

    asyncio.run(alter_topic(scene.rig.brokers, topic, {"cleanup.policy": "compact", **_COMPACT}))
    for _ in range(2 if scene.short else 4):
        scene.lasts(6, 12)
        scene.victim().kill()
    scene.lasts(2, 4)


CATALOGUE = MappingProxyType(
    {
        "none": Fault("nothing: what the rest is compared with", "", _nothing),
        "worker_killed": Fault("kill -9 of any worker", "worker", _kill_any),
        "workers_killed_in_turn": Fault("kill -9 of each, before the last is well", "worker", _kill_in_turn),
        "worker_frozen": Fault("frozen past its session, then thawed", "worker", _freeze),
        "worker_out_of_memory": Fault("its memory limit reached", "worker", _starve),
        "worker_cut_off": Fault("no packet between it and the brokers, past its session", "worker", _cut_off),
        "rebalance_storm": Fault("others join, leave and die", "worker", _storm),
        "broker_killed": Fault("kill -9 of any broker, started again", "broker", _kill_broker),
        "majority_lost": Fault("two of three brokers gone for half a minute", "broker", _lose_majority),
        "clickhouse_refuses": Fault("503 to every insert for a minute", "engine", _engine(8, 60, "refuse")),
        "clickhouse_slow": Fault("a disk that hangs: inserts stall", "engine", _engine(5, 20, "stall")),
        "clickhouse_full": Fault("a disk that is full", "engine", _engine(4, 15, "error", code=DISK_FULL)),
        "clickhouse_memory": Fault("its memory limit", "engine", _engine(4, 15, "error", code=MEMORY_LIMIT)),
        "inserts_cut": Fault("written, and the answer lost", "engine", _engine(4, 15, "cut")),
        "half_written": Fault("of each batch the verdicts' part refused", "engine",
                              _engine(4, 15, "refuse", "INSERT INTO `verdicts`")),
        "clickhouse_killed": Fault("kill -9 of the engine amid inserts", "engine", _kill_engine),
        "poison": Fault("one record of each hostile kind to each partition", "input", _poison),
        "hostile_flood": Fault("hostile records, 1,000,000 in the long form", "input", _flood),
        "clocks_step": Fault("clocks jump an hour and back", "", _step_clocks, own_clock=True),
        "compaction": Fault("checkpoints compacted all the time, workers killed", "log", _compact),
    }
)  # fmt: skip


def combine(rng: random.Random, number: int = 3) -> list[str]:
    """So many faults that harm different parts, drawn by `rng`."""
    by_part: dict[str, list[str]] = {}
    for name, fault in CATALOGUE.items():
        if fault.part and name != "hostile_flood":
            by_part.setdefault(fault.part, []).append(name)
    return [rng.choice(by_part[part]) for part in rng.sample(sorted(by_part), number)]


def together(names: list[str]) -> Callable[[Scene], None]:
    """Each starts at some moment of the first seconds; ends when all have ended."""

    def run(scene: Scene) -> None:
        def one(name: str, after: float) -> None:
            time.sleep(after)
            CATALOGUE[name].run(scene)

        with ThreadPoolExecutor(len(names)) as pool:
            begun = [pool.submit(one, name, 6 * scene.rng.random()) for name in names]
        for each in begun:
            each.result()

    return run
