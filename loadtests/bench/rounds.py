"""Both designs on one cluster, in turns: a backlog waits in the events topic, and verdicts are what counts.

A round's rate is that of its middle, from the 10th to the 95th verdict in a hundred by the broker's clock:
start-up and warm-up lie before it, requests whose route never comes lie behind it.
"""

import asyncio
import json
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import msgspec
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from loadtests.bench.backlog import Backlog
from loadtests.workers import Worker
from schemas.topics import VERDICTS, named
from streams.embedded.kafka import KafkaCluster
from streams.kafka import read_to_end
from streams.topics import create_topics

PARTITIONS = 6
FROM, TO = 0.10, 0.95
DONE = 0.99  # of the requests: some never see their route
WATCH_SECONDS = 0.2
PATIENCE_SECONDS = 300.0


class Round(msgspec.Struct):
    """One run of one design over one backlog."""

    requests: int
    verdicts: int  # distinct
    requests_per_s: float
    events_per_s: float
    cpu_us_per_request: float  # of the worker processes, all their threads
    startup_s: float  # of the process, until it is ready to judge
    stages: dict[str, float]  # share of the time between first and last verdict; they overlap, and waiting counts


class Running(NamedTuple):
    """Workers that have started. `seconds` gives each stage's seconds of the first, once all is judged."""

    pids: tuple[int, ...]
    startup_s: float  # until all are ready
    seconds: Callable[[], dict[str, float]]


class Sample(NamedTuple):
    """One look at the workers: verdicts published, and CPU used, so far."""

    verdicts: int
    cpu_s: float


@contextmanager
def our_worker(kafka: KafkaCluster, suffix: str, folder: Path, number: int = 1) -> Iterator[Running]:
    """`pointsman serve --role detect`, as it is shipped; so many of them."""
    settings = {
        "POINTSMAN_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "POINTSMAN_KAFKA_TOPIC_SUFFIX": suffix,
        "POINTSMAN_LOG_JSON": "false",
    }
    workers = [Worker(f"detect{i}{suffix}", folder, settings, ("detect",)) for i in range(number)]
    with ExitStack() as stack:
        began = time.perf_counter()
        for worker in workers:  # all at once: none may have judged everything before another is ready
            stack.callback(worker.stop)
            worker.start()
        for worker in workers:
            worker.await_ready()
        startup_s = time.perf_counter() - began
        yield Running(tuple(w.pid for w in workers), startup_s, lambda: _stage_seconds(workers[0].metrics_url))


def _stage_seconds(url: str) -> dict[str, float]:
    found = dict.fromkeys(("judge", "publish", "checkpoint"), 0.0)  # the latter two: after the first checkpoint
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  a worker of our own
        text = answer.read().decode()
    return found | {
        sample.labels["stage"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "pointsman_stage_duration_seconds_sum" and sample.labels["lane"] == "detect"
    }


@contextmanager
def literal_worker(kafka: KafkaCluster, suffix: str, folder: Path) -> Iterator[Running]:
    """The design built literally, in a process of its own."""
    command = [sys.executable, "-m", "loadtests.bench.literal", "--bootstrap", kafka.bootstrap]
    command += ["--suffix", suffix, "--folder", str(folder / f"literal{suffix}")]
    with (folder / f"literal{suffix}.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)  # noqa: S603

        def stop() -> dict[str, float]:
            printed = process.communicate(timeout=60)[0]
            seconds: dict[str, float] = json.loads(printed[printed.rindex(b"{") :])  # after Faust's spinner
            return seconds

        try:
            yield Running((process.pid,), 0.0, stop)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()


Starter = Callable[[KafkaCluster, str, Path], AbstractContextManager[Running]]


async def run_round(kafka: KafkaCluster, backlog: Backlog, start: Starter, folder: Path) -> Round:
    """Produce the backlog to topics of its own, let the workers judge it, and read what it did off its verdicts."""
    suffix = f".{secrets.token_hex(4)}"
    await create_topics(kafka.connection, PARTITIONS, kafka.nodes, suffix)
    await backlog.produce(kafka.connection, suffix)
    expected = int(DONE * backlog.requests)
    with start(kafka, suffix, folder) as worker:
        samples = await _watch(kafka, suffix, worker.pids, expected)
        seconds = worker.seconds()
    times: dict[bytes, int] = {}
    async for record in read_to_end(kafka.connection, named(VERDICTS, suffix)):
        times.setdefault(record.key or b"", record.timestamp)
    return measure(backlog, sorted(times.values()), samples, worker.startup_s, seconds)


async def _watch(kafka: KafkaCluster, suffix: str, pids: Sequence[int], expected: int) -> list[Sample]:
    """CPU time against the number of verdicts, until there are as many as expected."""
    processes, topic = [psutil.Process(pid) for pid in pids], named(VERDICTS, suffix)
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    samples: list[Sample] = []
    async with AIOKafkaConsumer(**kafka.connection) as consumer, asyncio.timeout(PATIENCE_SECONDS):
        while len(samples) < 2 or samples[-1].verdicts < expected:
            used = _cpu_s(processes)
            ends = await consumer.end_offsets(partitions)  # not none at the first look: workers judge once ready
            samples.append(Sample(sum(ends.values()), used))
            await asyncio.sleep(WATCH_SECONDS)
    return samples


def _cpu_s(processes: Iterable[psutil.Process]) -> float:
    return sum(used.user + used.system for used in (process.cpu_times() for process in processes))


def measure(
    backlog: Backlog, times_ms: list[int], samples: list[Sample], startup_s: float, seconds: dict[str, float]
) -> Round:
    """Figures of a round, from the times of its verdicts (ms, ascending) and the looks at its worker."""
    first, last = int(FROM * len(times_ms)), int(TO * len(times_ms))
    middle_s = max(times_ms[last] - times_ms[first], 1) / 1000
    # From the last look before the middle: however short a run is, the end is another one.
    before = ([sample for sample in samples[:-1] if sample.verdicts <= first] or samples[:1])[-1]
    judged, cpu_s = samples[-1].verdicts - before.verdicts, samples[-1].cpu_s - before.cpu_s
    rate = (last - first) / middle_s
    whole_s = max(times_ms[int(DONE * len(times_ms)) - 1] - times_ms[0], 1) / 1000
    return Round(
        requests=backlog.requests,
        verdicts=len(times_ms),
        requests_per_s=round(rate, 1),
        events_per_s=round(rate * len(backlog) / backlog.requests, 1),
        cpu_us_per_request=round(cpu_s / judged * 1e6, 1),
        startup_s=round(startup_s, 2),
        stages={stage: round(took / whole_s, 3) for stage, took in seconds.items()},
    )


class Lane(msgspec.Struct):
    """A design's rounds in figures: medians, and the range of the rate."""

    requests_per_s: float
    requests_per_s_min: float
    requests_per_s_max: float
    events_per_s: float
    cpu_us_per_request: float
    startup_s: float
    stages: dict[str, float]
    rounds: list[Round]


def summarise(rounds: list[Round]) -> Lane:
    """Medians over rounds."""
    rates = [each.requests_per_s for each in rounds]

    def middle(name: str) -> Any:
        return round(median(getattr(each, name) for each in rounds), 2)

    return Lane(
        requests_per_s=middle("requests_per_s"),
        requests_per_s_min=min(rates),
        requests_per_s_max=max(rates),
        events_per_s=middle("events_per_s"),
        cpu_us_per_request=middle("cpu_us_per_request"),
        startup_s=middle("startup_s"),
        stages={stage: round(median(r.stages.get(stage, 0.0) for r in rounds), 3) for stage in rounds[0].stages},
        rounds=rounds,
    )
