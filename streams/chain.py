"""The chain of thresholds where it is kept: the compacted topic (the latest of each), the history (all of it)."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from detectors.feedback import Feedback, Rules
from detectors.feedback.chain import entry_name, update_id
from schemas.codec import InvalidRecord, decode, encode, read_dead_letter
from schemas.signatures import chain_problems, derived, link_problem, read_keys
from schemas.thresholds import IN_FORCE, ThresholdDecision, ThresholdUpdate
from schemas.topics import DEADLETTERS, DECISIONS, FEEDBACK_CHECKPOINTS, THRESHOLDS, named
from streams.kafka import assign_all, connection, read_to_end
from streams.settings import Feedback as FeedbackSettings
from streams.settings import Kafka
from streams.store import Store


class DecisionRefused(RuntimeError):
    """The feedback lane does not carry a decision out; the message says why."""


class NoAnswer(RuntimeError):
    """The feedback lane has said nothing in time: it may do it later."""


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest link of each key of the topic, by version."""

    links: tuple[ThresholdUpdate, ...]

    @property
    def in_force(self) -> list[ThresholdUpdate]:
        """One of each threshold that was ever moved."""
        return [link for link in self.links if link.mode in IN_FORCE]

    @property
    def proposed(self) -> list[ThresholdUpdate]:
        """Proposals that nobody has settled: nothing came into force after them."""
        settled = {entry_name(link.scope, link.parameter): link.version for link in self.in_force}
        return [
            link
            for link in self.links
            if link.mode == "proposed" and link.version > settled.get(entry_name(link.scope, link.parameter), 0)
        ]


def update_keys(settings: FeedbackSettings) -> dict[str, bytes] | None:
    """What links are, and were, signed with, by key id; None without a key."""
    if not settings.key:
        return None
    keys = {**read_keys(settings.old_keys), settings.key_id: settings.key}
    return {key_id: derived(key, "updates") for key_id, key in keys.items()}


async def latest(kafka: Kafka) -> Latest:
    """What the compacted topic holds.

    Raises:
        InvalidRecord: something else is in it.
    """
    newest: dict[bytes, ThresholdUpdate] = {}
    async for record in read_to_end(connection(kafka), named(THRESHOLDS, kafka.topic_suffix)):
        if record.value:
            newest[record.key or b""] = decode(ThresholdUpdate, record)
    return Latest(tuple(sorted(newest.values(), key=lambda link: link.version)))


async def whole(store: Store) -> list[ThresholdUpdate]:
    """All links that the history has, by version; two of one version where it was given two."""
    answer = await store.query("SELECT link FROM threshold_links FINAL ORDER BY version, link", {})
    return [msgspec.json.decode(row[0], type=ThresholdUpdate) for row in answer.rows]


def problems(chain: Sequence[ThresholdUpdate], topic: Latest, keys: Mapping[str, bytes] | None) -> list[str]:
    """What is wrong with the history's chain, the topic's links, or between them; empty: nothing."""
    found = chain_problems(chain, keys)
    by_version = {link.version: link for link in chain}
    for link in topic.links:
        if problem := link_problem(link, keys):
            found.append(f"topic: {problem}")
        elif link.version not in by_version:
            found.append(f"topic: version {link.version} is not in the history (yet?)")
        elif by_version[link.version].hash != link.hash:
            found.append(f"topic: version {link.version} is another than the history's")
    newest = topic.links[-1].version if topic.links else 0
    if chain and chain[-1].version > newest:
        found.append(f"history: version {chain[-1].version} is newer than all of the topic's")
    return found


async def state(kafka: Kafka, rules: Rules) -> Feedback:
    """The feedback lane's state as of its last checkpoint."""
    feedback = Feedback(rules)
    async for record in read_to_end(connection(kafka), named(FEEDBACK_CHECKPOINTS, kafka.topic_suffix)):
        feedback.load(record.key or b"", record.value)
    feedback.loaded()
    return feedback


def new_decision(**fields: Any) -> ThresholdDecision:
    """A decision of now."""
    return ThresholdDecision(decision_id=secrets.token_hex(16), time=datetime.now(UTC), **fields)


async def decide(kafka: Kafka, decision: ThresholdDecision, wait_seconds: float) -> list[ThresholdUpdate]:
    """Have the feedback lane carry a decision out, and wait for the links that it made of it.

    Raises:
        DecisionRefused: the lane says why not.
        NoAnswer: it says nothing in time.
    """
    suffix = kafka.topic_suffix
    consumer = AIOKafkaConsumer(**connection(kafka), isolation_level="read_committed", fetch_max_wait_ms=100)
    async with consumer, AIOKafkaProducer(**connection(kafka), enable_idempotence=True) as producer:
        places = await assign_all(consumer, named(THRESHOLDS, suffix), named(DEADLETTERS, suffix))
        await consumer.seek_to_end(*places)
        for place in places:
            await consumer.position(place)
        await producer.send_and_wait(named(DECISIONS, suffix), encode(decision), key=decision.decision_id.encode())
        try:
            async with asyncio.timeout(wait_seconds):
                while True:
                    batches = await consumer.getmany(timeout_ms=200)
                    if made := _answers([r for records in batches.values() for r in records], decision, suffix):
                        return made
        except TimeoutError:
            raise NoAnswer(
                f"sent, and no answer within {wait_seconds:.0f} s: does a worker with the role feedback run?"
            ) from None


def _answers(records: Sequence[Any], decision: ThresholdDecision, suffix: str) -> list[ThresholdUpdate]:
    made = []
    for record in records:
        if record.topic == named(DEADLETTERS, suffix):
            try:
                letter = read_dead_letter(record)
            except InvalidRecord:
                continue
            if letter.stage == "audit" and letter.value == encode(decision):
                raise DecisionRefused(letter.detail)
        elif record.value:
            link = decode(ThresholdUpdate, record)
            if link.update_id == update_id(decision.decision_id, entry_name(link.scope, link.parameter)):
                made.append(link)
    return made
