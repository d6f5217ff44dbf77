"""Steady traffic on a real cluster, real workers on it, and the proof of exactness at the end."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from detectors.judge import Judge, JudgeLimits
from detectors.panel import build_panel
from detectors.registry import stream_detectors
from detectors.thresholds import Thresholds
from loadtests.exactness import Exactness, check
from loadtests.workers import Worker
from schemas.codec import encode
from schemas.topics import EVENTS, Topic, named
from streams.embedded.kafka import KafkaCluster
from streams.topics import create_topics
from tests.factories import outcome, request, route

PARTITIONS = 6
PRINCIPALS = 200
CATCH_UP_SECONDS = 120.0
TICKS_SECONDS = 5.0  # longer than the grace of a join and the silence before a tick


class Traffic:
    """Requests at a rate, each with a route (but for 1 in 50) and an outcome, rubbish between; until stopped."""

    def __init__(self, bootstrap: str, suffix: str, per_second: int = 300) -> None:
        self.requests = 0
        self._bootstrap = bootstrap
        self._topic = named(EVENTS, suffix)
        self._per_second = per_second
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._produce()))
        self._error: BaseException | None = None

    async def _produce(self) -> None:
        try:
            await self._produce_until_stopped()
        except BaseException as error:
            self._error = error

    async def _produce_until_stopped(self) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap, enable_idempotence=True, linger_ms=5, request_timeout_ms=60_000
        )
        await producer.start()
        sends = []
        began = time.monotonic()
        while not self._stop.is_set():
            while self.requests < (time.monotonic() - began) * self._per_second:
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

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def wait_for(self, requests: int) -> None:
        """Until so many have been sent in all."""
        while self.requests < requests:
            if self._error is not None:
                raise self._error
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

    def traffic(self, per_second: int = 300) -> Traffic:
        """Traffic into these topics, not started."""
        return Traffic(self.kafka.bootstrap, self.suffix, per_second)

    def exactness(self) -> Exactness:
        """The comparison, once all is judged and checkpointed. Stop the traffic before."""
        panel = build_panel(Thresholds())

        def make(partition: int) -> Judge:
            return Judge(panel, stream_detectors(panel.thresholds), JudgeLimits(), partition)

        asyncio.run(self._caught_up())
        return asyncio.run(check(self.brokers, self.suffix, make))

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


def assert_exact(found: Exactness, requests: int) -> None:
    """Every request has one verdict, no effect is missing, and the state is that of an undisturbed run."""
    assert found.effects >= requests, found
    assert found.behind == 0, f"not all was checkpointed: {found}"
    assert found.exact, found
