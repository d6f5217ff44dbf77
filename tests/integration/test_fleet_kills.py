"""kill -9 of the fleet and notify lanes at any moment: each receiver hears of each alert once, and of its end.

One alert of the first round is under a suppression: it is published as any other, and no receiver hears of it.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiokafka import AIOKafkaProducer

from detectors.detections import SHIPPED, Detections, load
from detectors.fleet import FleetPartition
from detectors.suppressions import Suppressions
from detectors.thresholds import Thresholds
from loadtests.exactness import check
from loadtests.workers import Worker
from schemas.suppressions import Suppression
from schemas.topics import ALERTS, DEADLETTERS, FINDINGS, FLEET_CHECKPOINTS, named
from schemas.verdicts import Finding
from streams.embedded.kafka import KafkaCluster
from streams.suppressions import read, write
from streams.topics import create_topics
from tests.streams.notifiers.receiver import Receiver, receiving

PARTITIONS = 3
READY_S = 180.0  # a killed member of a channel's group is missed after its session only
QUIET = "under a suppression"
EACH_ROUND = 4  # alerts; each needs two findings, and is over three seconds after the second
LONGEST_WAIT_S = 3.0  # before a kill: past the notification and a checkpoint, into earlier resolves


class Heard(NamedTuple):
    """What one receiver was told of one alert, in order: starts and statuses."""

    starts: set[str]
    statuses: list[str]


def heard(receiver: Receiver) -> dict[str, dict[str, Heard]]:
    """By channel and trigger_id."""
    told: dict[str, dict[str, Heard]] = defaultdict(lambda: defaultdict(lambda: Heard(set(), [])))
    for message, _, _ in list(receiver.taken):
        channel = "webhook" if "alerts" in message else "alertmanager"
        entries: Any = message["alerts"] if channel == "webhook" else message
        for entry in entries:
            alert = told[channel][entry["labels"]["trigger_id"]]
            alert.starts.add(entry["startsAt"])
            alert.statuses.append(entry.get("status") or _status(entry))
    return told


def _status(entry: Mapping[str, str]) -> str:
    """Of an entry for Alertmanager: what fires is to be held for minutes, what is over lasted for seconds."""
    lasts = datetime.fromisoformat(entry["endsAt"]) - datetime.fromisoformat(entry["startsAt"])
    return "resolved" if lasts < timedelta(minutes=1) else "firing"


def suppression(trigger: str) -> Suppression:
    """For the whole test."""
    now = datetime.now(UTC)
    return Suppression(
        suppression_id="s1", labels={"trigger_id": trigger}, starts_at=now - timedelta(minutes=1),
        ends_at=now + timedelta(hours=2), owner="test", reason="known noise", created_at=now,
    )  # fmt: skip


def short_detections(folder: Path) -> Path:
    """The shipped detection of known triggers, but quick to be over, and slow to begin."""
    text = (SHIPPED / "known_trigger.yml").read_text()
    text = text[: text.index("Campaign:")] + text[text.index("Reports:") :]
    text = text.replace("Severity: critical\n", "Severity: critical\nThreshold: 2\nDedupPeriodMinutes: 0.05\n", 1)
    (folder / "known_trigger.yml").write_text(text)
    return folder


async def publish(brokers: Mapping[str, Any], topic: str, detections: Detections, triggers: list[str]) -> None:
    """Two findings of each trigger, in one go: in stream time they are together, whatever happens to workers."""
    async with AIOKafkaProducer(**brokers) as producer:
        for trigger in triggers:
            for number in range(2):
                finding = Finding(
                    finding_id=f"{trigger}-{number}", kind="known_trigger", category="cost_escalation",
                    severity="info", time=datetime.now(UTC), labels={}, detector="triggers", detector_version="1",
                    tenant_id="acme", principal_hash="p1", trigger_id=trigger,
                )  # fmt: skip
                for output in detections.records(finding):
                    await producer.send(topic, output.value, key=output.key)
        await producer.flush()


async def kills(kafka: KafkaCluster, run_id: str, folder: Path, rounds: int, seed: int) -> int:
    """Run so many rounds of alerts, with a kill in each; records that were published again in them."""
    rng = random.Random(seed)
    detections = load(short_detections(folder))
    await create_topics(kafka.connection, PARTITIONS, 1, run_id)
    await write(kafka.connection, suppression(QUIET), run_id)
    async with receiving() as receiver:
        worker = Worker("fleet", folder, {
            "POINTSMAN_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "POINTSMAN_KAFKA_TOPIC_SUFFIX": run_id,
            "POINTSMAN_KAFKA_SESSION_SECONDS": "6",
            "POINTSMAN_KAFKA_INSTANCE_ID": "w1",
            "POINTSMAN_FLEET_DETECTIONS": str(folder),
            "POINTSMAN_NOTIFY_CONSOLE": "false",
            "POINTSMAN_NOTIFY_WEBHOOK_URL": receiver.url,
            "POINTSMAN_NOTIFY_ALERTMANAGER_URL": receiver.base,
            "POINTSMAN_NOTIFY_ALERTS_PER_MINUTE": "1000",
            "POINTSMAN_LOG_JSON": "false",
        }, ("fleet", "notify"))  # fmt: skip
        expected: set[str] = set()
        try:
            await asyncio.to_thread(lambda: worker.start().await_ready(READY_S))
            for number in range(rounds):
                triggers = [f"round-{number}-{i}" for i in range(EACH_ROUND)]
                expected |= set(triggers)
                if not number:
                    triggers.append(QUIET)
                await publish(kafka.connection, named(FINDINGS, run_id), detections, triggers)
                await asyncio.sleep(rng.uniform(0.0, LONGEST_WAIT_S))
                worker.kill()
                await asyncio.to_thread(lambda: worker.start().await_ready(READY_S))
            async with receiver.changed, asyncio.timeout(120):
                await receiver.changed.wait_for(lambda: _all_over(receiver, expected))
        finally:
            await asyncio.to_thread(worker.stop)
    for channel, alerts in heard(receiver).items():
        assert set(alerts) == expected, channel
        for trigger, alert in alerts.items():
            assert len(alert.starts) == 1, f"{channel} heard of {trigger} as several alerts: {alert}"
            assert alert.statuses[0] == "firing", (channel, trigger, alert)
            assert alert.statuses[-1] == "resolved", (channel, trigger, alert)
    rules = await read(kafka.connection, run_id)
    found = await check(
        kafka.connection, run_id, lambda _: fleet_of(detections, rules), FINDINGS, FLEET_CHECKPOINTS,
        (FINDINGS, ALERTS, DEADLETTERS),
    )  # fmt: skip
    assert found.exact, found
    assert found.effects == 2 * len(expected) + 2, "an alert fires once and resolves once"
    return found.repeated


def fleet_of(detections: Detections, rules: Suppressions) -> FleetPartition:
    """A partition of the lane as a worker without settings has it."""
    return FleetPartition.build(detections, Thresholds(), transplants=False, suppressions=rules)


def _all_over(receiver: Receiver, expected: set[str]) -> bool:
    told = heard(receiver)
    return len(told) == 2 and all(
        set(alerts) >= expected and all(alert.statuses[-1] == "resolved" for alert in alerts.values())
        for alerts in told.values()
    )


async def test_killed_twice(kafka: KafkaCluster, run_id: str, tmp_path: Path) -> None:
    await kills(kafka, run_id, tmp_path, rounds=2, seed=1)


@pytest.mark.long
@pytest.mark.timeout(1_200)
async def test_killed_twenty_times_at_random(kafka: KafkaCluster, run_id: str, tmp_path: Path) -> None:
    repeated = await kills(kafka, run_id, tmp_path, rounds=20, seed=7)
    assert repeated > 0, "nothing was done again: no kill was between an effect and its checkpoint"
