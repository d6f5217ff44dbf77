"""The feedback lane: labels, untrusted reports and decisions, put into one order, to the chain of thresholds.

Topics of their own, because who may write what is an ACL; one log, because thresholds must be a function of one
order that is kept. So a relay copies what comes into the feedback topic, with where it came from, and the lane
reads that. What the relay copies again after a crash the lane knows by its place.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition

from detectors.detections import Detections
from detectors.feedback import Feedback, Rules
from detectors.feedback.processor import MOST_BYTES, ORIGIN
from detectors.processor import Record
from detectors.tickets import read_canaries
from schemas.signatures import read_keys
from schemas.topics import AUDITS, DECISIONS, FEEDBACK, FEEDBACK_CHECKPOINTS, REPORTS, TICKETS, named
from streams.follower import Follower
from streams.health import Health
from streams.kafka import read_batches
from streams.lanespec import LaneSpec
from streams.settings import Settings

TICK_SECONDS = 30.0  # overrides and soft steps expire after hours
SOURCES = (AUDITS, DECISIONS, REPORTS, TICKETS)
_POLL_MS = 200
_MOST_RECORDS = 2_000


def rules(settings: Settings) -> Rules:
    """What the settings allow.

    Raises:
        ValueError: the file of canaries holds something else.
        OSError: it cannot be read.
    """
    feedback = settings.feedback
    return Rules(
        key=feedback.key,
        key_id=feedback.key_id,
        old_keys=read_keys(feedback.old_keys),
        mode=feedback.mode,
        approvers=read_keys(feedback.approvers),
        canaries=read_canaries(Path(feedback.canaries)) if feedback.canaries else (),
        silence_ms=round(feedback.silence_hours * 3_600_000),
        ladder=tuple(feedback.ladder.split()),
    )


def spec(settings: Settings, detections: Detections) -> LaneSpec:
    """The lane as the settings want it."""
    allowed = rules(settings)

    def make(partition: int) -> Feedback:
        return Feedback(allowed, detections)

    return LaneSpec(
        name="feedback",
        source=FEEDBACK,
        checkpoints=FEEDBACK_CHECKPOINTS,
        group=settings.feedback.group,
        make=make,
        checkpoint_seconds=settings.detect.checkpoint_seconds,
        checkpoint_events=settings.detect.checkpoint_events,
        tick_seconds=TICK_SECONDS,
        dead_letter_max_ratio=1.0,  # whoever floods it with forgeries must not be able to stop it
        session_timeout_ms=round(settings.kafka.session_seconds * 1000),
        instance_id=settings.kafka.instance_id or None,
    )


def _bounded(record: Record) -> tuple[bytes, bytes]:
    """Value and key, such as the producer and the topic take any of: what is too long is still seen to be."""
    return (record.value or b"")[: MOST_BYTES + 1], (record.key or b"")[:MOST_BYTES]


class Relay(Follower):
    """Copies its sources into the feedback topic, in the order in which it reads them."""

    def __init__(self, settings: Settings, connection: Mapping[str, Any], health: Health) -> None:
        """`connection`: how to reach the brokers (`streams.kafka.connection`)."""
        self._suffix = settings.kafka.topic_suffix
        super().__init__(
            "relay",
            health,
            connection,
            *(named(topic, self._suffix) for topic in SOURCES),
            group_id=f"{settings.feedback.group}-relay{self._suffix}",
            auto_offset_reset="earliest",
            max_poll_interval_ms=120_000,
        )
        self._read_to: dict[TopicPartition, int] = {}

    async def step(self) -> None:
        """Copy a batch. What is not committed is copied again by whoever has it next, and the lane knows it."""
        ours = self.consumer.assignment()
        for at in ours - self._read_to.keys():
            self._read_to[at] = await self.consumer.committed(at) or 0
        positions = {at: self._read_to[at] for at in ours}
        batches = await read_batches(self.consumer, positions, _POLL_MS, _MOST_RECORDS)
        sends = []
        for at, records in batches.items():
            topic = at.topic.removesuffix(self._suffix)
            for record in records:
                origin = f"{topic}:{at.partition}:{record.offset}".encode()
                value, key = _bounded(record)
                sends.append(
                    await self.producer.send(
                        named(FEEDBACK, self._suffix), value, key=key, headers=[(ORIGIN, origin)]
                    )
                )
                self._read_to[at] = record.offset + 1
        for sent in sends:
            await sent
        copied = {at: self._read_to[at] for at, records in batches.items() if records}
        if copied and not await self.commit(copied):
            self._read_to = {}
