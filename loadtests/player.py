"""Publishes events to Kafka when they are due, and watches what the service makes of them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from loadtests.report import Seen, Told
from loadtests.traffic import Sent
from schemas.alerts import Alert
from schemas.codec import encode, event_headers
from schemas.topics import ALERTS, EVENTS, FINDINGS, VERDICTS
from schemas.verdicts import Finding, Verdict

TICK_S = 0.01
WATCHED = (VERDICTS.name, FINDINGS.name, ALERTS.name)
SOURCE = "//pointsman/loadtests"

Brokers = Mapping[str, Any]  # arguments of every aiokafka client


async def play(brokers: Brokers, sent: Sequence[Sent], start: datetime, on_sent: Callable[[int], None]) -> None:
    """Publish every event at `start` plus its seconds, whatever the service does meanwhile; await all deliveries.

    The loop is open: a broker that is slow delays nothing but itself, and no event is left out.
    """
    async with AIOKafkaProducer(**brokers, acks="all", linger_ms=5, enable_idempotence=True) as producer:
        pending = []
        for number, (at, event) in enumerate(sent):
            while (wait := at - (datetime.now(UTC) - start).total_seconds()) > 0:
                on_sent(number)
                await asyncio.sleep(max(wait, TICK_S))
            key, headers = event.principal_hash.encode(), event_headers(event, SOURCE)
            pending.append(await producer.send(EVENTS.name, encode(event), key=key, headers=headers))
            if len(pending) >= 1000:
                await asyncio.gather(*pending)
                pending.clear()
        await asyncio.gather(*pending)
        on_sent(len(sent))


async def watch(brokers: Brokers, seen: Seen, on_alert: Callable[[Told], None]) -> None:
    """Read verdicts, findings and alerts into `seen` until cancelled."""
    consumer = AIOKafkaConsumer(
        *WATCHED, **brokers, auto_offset_reset="earliest",
        isolation_level="read_committed", group_id=None, enable_auto_commit=False,
    )  # fmt: skip
    async with consumer:
        async for record in consumer:
            seen.read_to[record.topic, record.partition] = record.offset + 1
            if record.value:
                at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
                alarm = _take(seen, record.topic, record.value, at)
                if alarm is not None:
                    on_alert(alarm)


def _take(seen: Seen, topic: str, value: bytes, at: datetime) -> Told | None:
    """File one record; an alert's first firing state is returned."""
    if topic == VERDICTS.name:
        verdict = msgspec.json.decode(value, type=Verdict)
        seen.verdicts[verdict.verdict_id] = verdict
        seen.last_verdict = at
    elif topic == FINDINGS.name:
        finding = msgspec.json.decode(value, type=Finding)
        seen.findings[finding.finding_id] = finding
    else:
        alert = msgspec.json.decode(value, type=Alert)
        seen.alert_states.add((alert.alert_id, alert.sequence))
        if alert.status == "firing" and alert.alert_id not in seen.told:
            seen.told[alert.alert_id] = Told(alert, at)
            return seen.told[alert.alert_id]
    return None


class Groups:
    """What consumer groups have committed, as the broker knows it."""

    def __init__(self, brokers: Brokers) -> None:
        self._admin = AIOKafkaAdminClient(**brokers)
        self._reader = AIOKafkaConsumer(**brokers)

    async def __aenter__(self) -> "Groups":
        """Connect."""
        await self._admin.start()
        await self._reader.start()
        return self

    async def __aexit__(self, *failure: object) -> None:
        """Disconnect."""
        await self._reader.stop()
        await self._admin.close()

    async def caught_up(self, group: str, topics: Sequence[str]) -> None:
        """Wait until the group has committed all that the topics hold now. What comes meanwhile does not count.

        Ticks go on while an alert fires: a group that is well never shows a lag of 0 for long.
        """
        ends = await self._ends(topics)
        while True:
            committed = await self._admin.list_consumer_group_offsets(group, partitions=list(ends))
            if all(at in committed and committed[at].offset >= end for at, end in ends.items()):
                return
            await asyncio.sleep(0.2)

    async def at_rest(self, group: str, topics: Sequence[str], seconds: float) -> None:
        """Wait until the group has committed all that the topics hold, and `seconds` later they hold no more."""
        before: dict[TopicPartition, int] = {}
        while (ends := await self._ends(topics)) != before:
            await self.caught_up(group, topics)
            before = ends
            await asyncio.sleep(seconds)

    async def watched(self, seen: Seen) -> None:
        """Wait until `watch` has read all that its topics hold now."""
        ends = await self._ends(WATCHED)
        while True:
            if all(seen.read_to.get((at.topic, at.partition), 0) >= end for at, end in ends.items()):
                return
            await asyncio.sleep(0.05)

    async def _ends(self, topics: Sequence[str]) -> dict[TopicPartition, int]:
        """Ends of the partitions that hold anything."""
        described = await self._admin.describe_topics(list(topics))
        parts = [
            TopicPartition(topic["topic"], part["partition"]) for topic in described for part in topic["partitions"]
        ]
        return {at: end for at, end in (await self._reader.end_offsets(parts)).items() if end}
