"""A worker that takes over a large partition, with a large catalogue: until it is ready, and what it then holds."""

import asyncio
import re
import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import psutil
from aiokafka import AIOKafkaProducer

from detectors.judge import Judge, JudgeLimits
from detectors.panel import build_panel
from detectors.registry import stream_detectors
from detectors.thresholds import Thresholds
from loadtests.bench.backlog import Backlog
from loadtests.bench.rounds import our_worker
from loadtests.bench.triggers import catalogue, gadgets
from schemas.codec import encode
from schemas.topics import CHECKPOINTS, TRIGGERS, named
from schemas.triggers import Trigger
from streams.checkpoints import Checkpoints
from streams.embedded.kafka import KafkaCluster
from streams.topics import create_topics

DELTA = 20_000  # records a transaction
_OF_PRINCIPAL = re.compile(rb"d/[a-z]+/p/")


class Figures(msgspec.Struct):
    """Of one `pointsman serve --role detect` that owns one partition."""

    keys: int  # in the partition's checkpoints
    triggers: int
    ready_s: float  # of the process, state, catalogue and all
    recovery_s: float  # of it, beyond what one takes that has nothing to load
    memory_bytes: int  # resident, once it is ready


async def measure(kafka: KafkaCluster, sample: Backlog, keys: int, triggers: int, folder: Path) -> Figures:
    """Write the checkpoints and the catalogue, start a worker on them, and one on nothing beside it."""
    empty_s, _ = await _start(kafka, Backlog([], 0), {}, (), folder)
    state = grown(_state_after(sample), keys)
    entries = catalogue(gadgets(triggers)).triggers
    ready_s, memory = await _start(kafka, sample, state, entries, folder)
    return Figures(len(state), len(entries), ready_s, round(max(0.0, ready_s - empty_s), 2), memory)


def _state_after(sample: Backlog) -> dict[bytes, bytes]:
    panel = build_panel(Thresholds())
    judge = Judge(panel, stream_detectors(panel.thresholds), JudgeLimits())
    judge.apply(sample.records)
    return judge.snapshot()


def grown(state: Mapping[bytes, bytes], keys: int) -> dict[bytes, bytes]:
    """A state of so many keys, or a few more: with copies of its principals' records, as many for each detector."""
    stores: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for key in state:
        if of_principal := _OF_PRINCIPAL.match(key):
            stores[of_principal[0]].append(key)
    grown, number = dict(state), 0
    while stores and len(grown) < keys:
        for originals in stores.values():
            original = originals[number % len(originals)]
            grown[b"%s~%d" % (original, number)] = state[original]
        number += 1
    return grown


async def _start(
    kafka: KafkaCluster, sample: Backlog, state: Mapping[bytes, bytes], entries: Sequence[Trigger], folder: Path
) -> tuple[float, int]:
    """A worker on topics of its own: seconds until it is ready, and its resident bytes."""
    suffix = f".{secrets.token_hex(4)}"
    await create_topics(kafka.connection, 1, kafka.nodes, suffix)
    await sample.produce(kafka.connection, suffix)
    async with AIOKafkaProducer(**kafka.connection, linger_ms=20, max_batch_size=1 << 20) as producer:
        topic = named(TRIGGERS, suffix)
        await asyncio.gather(*[
            await producer.send(topic, encode(entry), key=entry.trigger_id.encode()) for entry in entries
        ])  # fmt: skip
    checkpoints = Checkpoints(kafka.connection, named(CHECKPOINTS, suffix), 0, f"bench{suffix}")
    await checkpoints.fence()
    try:
        records = list(state.items())
        for at in range(0, len(records), DELTA):
            await checkpoints.write(records[at : at + DELTA])
    finally:
        await checkpoints.close()
    with our_worker(kafka, suffix, folder) as worker:
        return round(worker.startup_s, 2), psutil.Process(worker.pids[0]).memory_info().rss
