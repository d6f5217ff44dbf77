"""One process's producer, and what it knows of each event: when it was due, acknowledged, judged, alarmed, stored.

librdkafka does not know gevent: nothing here may block. Deliveries and answers are polled, never waited for.
Latency counts from the moment an event was due, not from when a busy generator came to send it.
"""

import itertools
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gevent
import msgspec
import numpy as np
import urllib3
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from loadtests.load.generated import Generated
from loadtests.player import SOURCE
from schemas.alerts import Alert
from schemas.codec import encode, event_headers, event_type
from schemas.events import AnyEvent, Request, Route
from schemas.topics import ALERTS, EVENTS, VERDICTS

POLL_SECONDS = 0.005
WATCH_SECONDS = 0.02
PROBE_SECONDS = 0.25  # how often the history is asked: the resolution of that latency
PROBES_A_SECOND = 5
LAST_ANSWERS_SECONDS = 300.0  # a backlog is drained by then: verdicts that nobody waits for would flatter the rest


class _Seen(msgspec.Struct):
    """As much of a verdict as is needed here: decoded for each one."""

    event_id: str
    route_missing: bool = False


class Meter:
    """Shared by all gateways of this process."""

    def __init__(self, environment: Any, brokers: str, suffix: str, dsn: str, database: str) -> None:
        """`dsn`: of ClickHouse; empty: the history is not asked. Reads answers from where the topics end now."""
        self.found = Generated()
        self._fire = environment.events.request.fire
        self._suffix = suffix
        self._topics = {topic.name: topic.name + suffix for topic in (EVENTS, VERDICTS, ALERTS)}
        self._producer = Producer({
            "bootstrap.servers": brokers, "acks": "all", "enable.idempotence": True, "linger.ms": 5,
            "compression.type": "lz4", "queue.buffering.max.messages": 1_000_000, "message.timeout.ms": 120_000,
            "partitioner": "murmur2_random",  # what aiokafka and Java do: a key's partition is the same for all
        })  # fmt: skip
        self._late: list[float] = []
        self._due: dict[str, tuple[float, str]] = {}  # request event -> when it and its route were due, whose
        self._requests: dict[str, float] = {}  # request id -> due, for alerts
        self._probes: dict[str, float] = {}
        self._probe_at = 0.0
        self._http = urllib3.PoolManager(timeout=5.0, retries=False)
        self._query = f"{dsn}/?database={quote(database)}" if dsn else ""
        self._answers = self._consumer(brokers)
        self._cpu = time.process_time()
        self.found.started = time.time()
        for work in (self._poll, self._watch, self._probe):
            gevent.spawn(work)

    def _consumer(self, brokers: str) -> Consumer:
        consumer = Consumer(
            {"bootstrap.servers": brokers, "group.id": f"load-{os.getpid()}", "enable.auto.commit": False}
        )
        at_end = []
        for topic in (self._topics[VERDICTS.name], self._topics[ALERTS.name]):
            for partition in consumer.list_topics(topic, timeout=30).topics[topic].partitions:
                _, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
                at_end.append(TopicPartition(topic, partition, high))
        consumer.assign(at_end)
        return consumer

    # --- sending

    def send(self, event: AnyEvent, due: float, whose: str) -> None:
        """Publish one event that was due at this moment (seconds since 1970)."""
        if isinstance(event, Request) and event.request_id not in self._requests:  # the second time is a repeat
            self._requests[event.request_id] = due
            self._due[event.event_id] = (due, whose)
            if self._query and due >= self._probe_at:
                self._probes[event.event_id] = due
                self._probe_at = due + 1 / PROBES_A_SECOND
        elif isinstance(event, Route) and event.attempt == 0:
            # A verdict needs both: it is due when the later of the two is.
            request = f"{event.request_id}/request"
            known, _ = self._due.get(request, (0.0, ""))
            if known:
                self._due[request] = (max(due, known), whose)
        self.send_raw(
            EVENTS.name, event.principal_hash.encode(), encode(event), event_headers(event, SOURCE), due,
            f"produce {event_type(event)}", event.event_id if isinstance(event, Request) else "",
        )  # fmt: skip

    def send_raw(
        self, topic: str, key: bytes, value: bytes, headers: list[tuple[str, bytes]], due: float, name: str,
        request: str = "",
    ) -> None:  # fmt: skip
        """Publish any bytes. What the producer cannot take is a failure that is counted, and never waited for."""
        self._late.append(time.time() - due)

        def delivered(error: Any, _message: Any) -> None:
            self._done(name, due, len(value), error)
            if error is None and request:
                self.found.requests.append(request)

        try:
            self._producer.produce(topic + self._suffix, value, key, headers=headers, on_delivery=delivered)
        except (BufferError, KafkaException) as error:
            self._done(name, due, len(value), error)

    def _done(self, name: str, due: float, size: int, error: Any) -> None:
        if error is None:
            self.found.delivered += 1
        else:
            self.found.failed += 1
            reason = str(error)[:80]
            self.found.errors[reason] = self.found.errors.get(reason, 0) + 1
        self._report(
            "KAFKA", name, time.time() - due, size, RuntimeError(str(error)) if error is not None else None
        )

    def _report(self, kind: str, name: str, seconds: float, size: int = 0, error: Exception | None = None) -> None:
        self._fire(
            request_type=kind, name=name, response_time=max(0.0, seconds) * 1000, response_length=size,
            exception=error, context={},
        )  # fmt: skip

    def _poll(self) -> None:
        while True:
            self._producer.poll(0)
            gevent.sleep(POLL_SECONDS)

    # --- what comes of it

    def _watch(self) -> None:
        verdict = msgspec.json.Decoder(_Seen)
        alert = msgspec.json.Decoder(Alert)
        told: set[str] = set()
        while True:
            messages = self._answers.consume(2_000, timeout=0)
            for message in messages:
                if message.error() or not message.value():
                    continue
                at = message.timestamp()[1] / 1000
                if message.topic() == self._topics[VERDICTS.name]:
                    self._on_verdict(verdict.decode(message.value()), at)
                else:
                    self._on_alert(alert.decode(message.value()), at, told)
            gevent.sleep(0 if messages else WATCH_SECONDS)

    def _on_verdict(self, verdict: _Seen, at: float) -> None:
        due, whose = self._due.pop(verdict.event_id, (0.0, ""))
        if due and not verdict.route_missing:  # without its route it waits by design
            self.found.verdict_at.append((due, at - due, whose))
            self._report("E2E", "event to verdict" + (f" ({whose})" if whose else ""), at - due)

    def _on_alert(self, alert: Alert, at: float, told: set[str]) -> None:
        if alert.status != "firing" or alert.alert_id in told:
            return
        told.add(alert.alert_id)
        causes = [self._requests[name] for name in alert.request_ids if name in self._requests]
        if causes:  # the last is the one that made it fire
            self.found.alert_s.append(at - max(causes))
            self._report("E2E", "event to alert", at - max(causes))

    def _probe(self) -> None:
        while True:
            gevent.sleep(PROBE_SECONDS)
            if self._probes:
                names = list(itertools.islice(self._probes, 200))
                for name in self._stored(names):
                    took = time.time() - self._probes.pop(name)
                    self.found.visible_s.append(took)
                    self._report("E2E", "event to ClickHouse", took)

    def _stored(self, names: list[str]) -> list[str]:
        listed = ",".join(f"'{name}'" for name in names)  # ids of our own making
        sql = f"SELECT event_id FROM requests WHERE event_id IN ({listed}) GROUP BY event_id"  # noqa: S608
        try:
            answer = self._http.request("POST", self._query, body=sql.encode())
        except urllib3.exceptions.HTTPError:
            return []
        return (
            [name for name in answer.data.decode().split() if name in self._probes] if answer.status == 200 else []
        )

    # --- the end

    def finish(self, report: Path | None) -> Generated:
        """Wait for deliveries and the last answers, a bounded time, and write what was found."""
        found = self.found
        found.ended = time.time()
        found.cpu_share = round((time.process_time() - self._cpu) / max(1e-9, found.ended - found.started), 3)
        deadline = time.monotonic() + LAST_ANSWERS_SECONDS
        while len(self._producer) and time.monotonic() < deadline:
            gevent.sleep(POLL_SECONDS)
        while (self._due or self._probes) and time.monotonic() < deadline:
            gevent.sleep(WATCH_SECONDS)
        if self._late:
            found.late_p99_s = round(float(np.percentile(self._late, 99)), 4)
        if report is not None:
            report.write_bytes(msgspec.msgpack.encode(found))
        return found
