"""Steady traffic on a real cluster, real workers on it, and the proof of exactness at the end."""

import asyncio
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from detectors.detections import shipped
from loadtests.background import Background
from loadtests.exactness import Exactness, check
from loadtests.workers import Worker
from schemas.codec import encode
from schemas.topics import EVENTS, Topic, named
from streams.configuration import load
from streams.embedded.kafka import KafkaCluster
from streams.lanes import detect
from streams.topics import create_topics
from tests.factories import outcome, request, route

PARTITIONS = 6
PRINCIPALS = 200
CATCH_UP_SECONDS = 120.0
GRACE_SECONDS = 0.5
TICKS_SECONDS = 2.0  # longer than the grace of a join and the silence before a tick
RATE = 150  # requests a second
MOST_AHEAD = 1_500  # requests beyond what was waited for: on a slow machine workers start for long


class Traffic(Background):
    """Requests at a rate, each with a route (but for 1 in 50) and an outcome, rubbish between; until stopped."""

    def __init__(self, bootstrap: str, suffix: str, per_second: int = RATE) -> None:
        super().__init__()
        self.requests = 0
        self._bootstrap = bootstrap
        self._topic = named(EVENTS, suffix)
        self._per_second = per_second
        self._waited_for = 0

    def work(self) -> None:
        asyncio.run(self._produce())

    async def _produce(self) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap, enable_idempotence=True, linger_ms=5, request_timeout_ms=60_000
        )
        await producer.start()
        sends = []
        began = time.monotonic()
        while not self.stopping.is_set():
            due = (time.monotonic() - began) * self._per_second
            while self.requests < min(due, self._waited_for + MOST_AHEAD):
                number = self.requests
                principal, rid, now = f"p{number % PRINCIPALS}", f"r{number}", round(time.time() * 1000)
                events = [request(rid, principal, now), outcome(rid, principal, now)]
                if number % 50:
                    events.insert(1, route(rid, principal, now))
                for event in events:
                    sends.append(await producer.send(self._topic, encode(event), key=principal.encode()))
                if number % 100 == 0:
                    sends.append(await producer.send(self._topic, b"\xffrubbish", key=principal.encode()))
                self.requests += 1
            await asyncio.sleep(0.02)
        for sent in sends:
            await sent
        await producer.stop()

    def wait_for(self, requests: int) -> None:
        """Until so many have been sent in all."""
        self._waited_for = requests
        while self.requests < requests:
            self.check()
            time.sleep(0.05)


class Fleet:
    """Topics of one run on a cluster, and the workers on them."""

    def __init__(self, kafka: KafkaCluster, run_id: str, folder: Path, **settings: str) -> None:
        self.kafka = kafka
        self.suffix = run_id
        self.brokers: Mapping[str, Any] = {"bootstrap_servers": kafka.bootstrap}
        self._folder = folder
        self._settings = {
            "POINTSMAN_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "POINTSMAN_KAFKA_TOPIC_SUFFIX": run_id,
            "POINTSMAN_KAFKA_SESSION_SECONDS": "6",
            "POINTSMAN_DETECT_CHECKPOINT_EVENTS": "1000",
            "POINTSMAN_DETECT_JOIN_GRACE_SECONDS": str(GRACE_SECONDS),
            "POINTSMAN_LOG_JSON": "false",
            **settings,
        }
        asyncio.run(create_topics(self.brokers, PARTITIONS, kafka.nodes, run_id))

    def worker(self, name: str, **settings: str) -> Worker:
        """A worker of the detect lane, not started."""
        return Worker(name, self._folder, {**self._settings, **settings}, ("detect",))

    def produce(self, topic: Topic, value: bytes, key: bytes, partition: int) -> None:
        """One record, by hand."""

        async def send() -> None:
            producer = AIOKafkaProducer(**self.brokers)
            await producer.start()
            await producer.send_and_wait(named(topic, self.suffix), value, key=key, partition=partition)
            await producer.stop()

        asyncio.run(send())

    def run(self, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A program of the tests in place of a worker, to its end."""
        environment = {**os.environ, **self._settings}
        return subprocess.run(
            [sys.executable, "-m", module, *arguments], env=environment, capture_output=True, text=True, timeout=120
        )

    def traffic(self, per_second: int = RATE) -> Traffic:
        """Traffic into these topics, not started."""
        return Traffic(self.kafka.bootstrap, self.suffix, per_second)

    def exactness(self) -> Exactness:
        """The comparison, once all is judged and checkpointed. Stop the traffic before."""
        settings = load(None, self._settings)
        lane = detect.spec(settings, detect.panel_of(settings.detect), shipped())
        asyncio.run(self._caught_up())
        return asyncio.run(check(self.brokers, self.suffix, lane.make))

    async def _caught_up(self) -> None:
        """Wait until the group's commits, which follow the checkpoints, are at the end, and that stays where it is.

        Requests whose route never came are moved on by ticks, which their partition's owner writes a while later.
        """
        group = f"pointsman-detect{self.suffix}"
        partitions = [TopicPartition(named(EVENTS, self.suffix), number) for number in range(PARTITIONS)]
        consumer = AIOKafkaConsumer(**self.brokers, group_id=group, enable_auto_commit=False)
        await consumer.start()
        try:
            consumer.assign(partitions)
            async with asyncio.timeout(CATCH_UP_SECONDS):
                before: dict[TopicPartition, int] = {}
                while True:
                    ends = await consumer.end_offsets(partitions)
                    done = {at: await consumer.committed(at) for at in partitions}
                    if all((done[at] or 0) >= ends[at] for at in partitions):
                        if ends == before:
                            return
                        before = ends
                    await asyncio.sleep(TICKS_SECONDS if ends == before else 0.5)
        finally:
            await consumer.stop()


def partitions_of(worker: Worker) -> int:
    """How many partitions of the events it judges."""
    with urllib.request.urlopen(worker.metrics_url, timeout=5) as answer:  # noqa: S310  a worker of our own
        text = answer.read().decode()
    found = re.search(r'^pointsman_partitions\{lane="detect",state="owned"\} (\S+)', text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def await_all_partitions(worker: Worker) -> None:
    """Until it judges all of them."""
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while partitions_of(worker) < PARTITIONS:
        assert time.monotonic() < deadline, "the others' partitions were not given to it"
        time.sleep(0.1)


def assert_exact(found: Exactness, requests: int) -> None:
    """Every request has one verdict, no effect is missing, and the state is that of an undisturbed run."""
    assert found.effects >= requests, found
    assert found.behind == 0, f"not all was checkpointed: {found}"
    assert found.exact, found
