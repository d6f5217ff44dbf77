"""One fault from empty topics to rest: three real brokers, the real engine, two workers, judged by ids."""

import asyncio
import contextlib
import random
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.faults.catalogue import CATALOGUE, SESSION_SECONDS, Fault, Scene, combine, together
from loadtests.faults.report import Row
from loadtests.proxy import Proxy
from loadtests.reckoning import Reckoner, Reckoning
from loadtests.rig import Crew, Rig
from loadtests.stream import Script, Stream, with_waves
from schemas.topics import EVENTS, named
from streams.embedded.clickhouse import ClickHouseServer
from streams.embedded.kafka import KafkaCluster
from streams.topics import alter_topic

CALM_SECONDS = 4.0  # of traffic before the fault
RECOVERY_SECONDS = 300.0
SETTINGS = {
    "POINTSMAN_KAFKA_SESSION_SECONDS": str(SESSION_SECONDS),
    "POINTSMAN_DETECT_CHECKPOINT_EVENTS": "1000",
    "POINTSMAN_CLICKHOUSE_BATCH_SECONDS": "0.5",
}


@dataclass(frozen=True, slots=True)
class Ground:
    """What all rows of a run stand on."""

    kafka: KafkaCluster
    engine: ClickHouseServer
    proxy: Proxy
    folder: Path
    script: Script
    reckoner: Reckoner


@contextlib.contextmanager
def ground(rate: float, seconds: float, seed: int) -> Iterator[Ground]:
    """Three brokers, an engine that can misbehave, a network that can be cut, and traffic for each row."""
    script, reckoner = with_waves(seconds, rate, seed), Reckoner()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pointsman-faults-")))
        kafka = stack.enter_context(KafkaCluster(nodes=3))
        engine = stack.enter_context(ClickHouseServer(folder / "clickhouse", free_port(), faults=True))
        proxy = stack.enter_context(Proxy(kafka.side_doors))
        yield Ground(kafka, engine, proxy, folder, script, reckoner)


def run(ground: Ground, name: str, fault: Fault, seed: int, short: bool) -> Row:
    """One fault from a quiet start to rest, and what came of it."""
    rig = Rig(ground.kafka, ground.engine, ground.folder, "fault", **SETTINGS)
    if fault.own_clock:
        asyncio.run(alter_topic(rig.brokers, named(EVENTS, rig.suffix), {"message.timestamp.type": "CreateTime"}))
    near, far = rig.worker("near"), rig.worker("far", POINTSMAN_KAFKA_BOOTSTRAP=ground.proxy.bootstrap)
    with Crew([far, near]) as crew:
        with Stream(ground.script, rig.brokers, rig.suffix, fault.own_clock) as stream:
            stream.play(CALM_SECONDS)
            fault.run(Scene(rig, crew, stream, ground.proxy, random.Random(f"{seed}/{name}"), short))
            recovery_s = _recovery(rig, len(stream.requests))
            stream.play(1.0)
        if recovery_s is not None:
            with contextlib.suppress(TimeoutError):  # the row says what is missing
                rig.settle()
        restarts = crew.restarts
    found, flagged = asyncio.run(_reckon(ground, rig, stream))
    return Row(
        fault=name, seed=seed, short=short, requests=found.requests, verdicts=found.verdicts, lost=found.lost,
        duplicated=found.duplicated, unexpected=found.unexpected, wrong_state=found.wrong_state,
        repeated=found.repeated, dead_letters=found.dead_letters, restarts=restarts, recovery_s=recovery_s,
        recall=round(stream.recall(flagged), 3), details=found.details,
    )  # fmt: skip


def _recovery(rig: Rig, due: int) -> float | None:
    """Seconds until so many requests are judged and stored; None where that takes too long."""
    began = time.monotonic()
    while rig.stored_verdicts() < due:
        if time.monotonic() - began > RECOVERY_SECONDS:
            return None
        time.sleep(0.25)
    return round(time.monotonic() - began, 1)


async def _reckon(ground: Ground, rig: Rig, stream: Stream) -> tuple[Reckoning, set[str]]:
    async with rig.store() as store:
        found, judged = await ground.reckoner.reckon(rig.brokers, rig.as_workers_have_it(), store, stream.requests)
    flagged = {
        name.removesuffix("/request") for name, verdict in judged.items() if "known_trigger" in verdict.kinds
    }
    return found, flagged


def free_port() -> int:
    """A port that nobody listens at: the engine must come back at the same one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def plan(names: Sequence[str], combinations: int, seed: int) -> Iterator[tuple[str, Fault]]:
    """The faults alone, then so many combinations drawn from the seed."""
    for name in names:
        yield name, CATALOGUE[name]
    rng = random.Random(seed)
    for _ in range(combinations):
        chosen = combine(rng)
        yield " + ".join(chosen), Fault("at once", "", together(chosen))
