"""Creates Pointsman's topics as schemas/topics.py has them, and checks those that exist."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code

from schemas.topics import ALL, Topic, named

METADATA_SECONDS = 30.0


class TopicError(RuntimeError):
    """A topic could not be created, or one that exists is not what the table says; names topic and setting."""


def configuration(topic: Topic, replication: int) -> dict[str, str]:
    """Kafka's settings of one topic, for a cluster with this replication factor."""
    settings = {**topic.config, **_must_match(topic)}
    if not topic.compacted:
        settings["retention.ms"] = str(topic.retention_ms)
    if replication >= 3:
        settings["min.insync.replicas"] = "2"
    return settings


async def create_topics(
    connection: Mapping[str, Any], partitions: int, replication: int, suffix: str = ""
) -> list[str]:
    """Create the topics that are missing and return their names, once clients can use them.

    `connection`: how to reach the brokers (`streams.kafka.connection`); `partitions`: of the events topic and those
    like it. Raises TopicError for what Kafka refuses, and for whatever `check_topics` says of those that exist.
    """
    async with _admin(connection) as admin:
        existing = set(await admin.list_topics())
        # What stands is checked first. What is made here is not: a broker that has not heard of it would deny it.
        if problems := await _wrong(admin, existing, partitions, suffix):
            raise TopicError("; ".join(problems))
        missing = [
            NewTopic(
                named(topic, suffix),
                partitions if topic.like_events else topic.partitions,
                replication,
                topic_configs=configuration(topic, replication),
            )
            for topic in ALL
            if named(topic, suffix) not in existing
        ]
        return await _create(admin, missing)


async def check_topics(connection: Mapping[str, Any], partitions: int, suffix: str = "") -> list[str]:
    """What keeps Pointsman from working right on these topics, one sentence each; empty when nothing does.

    Checked is what wrong answers or lost state would follow from: presence, partition count, cleanup policy and
    whose clock stamps the records. Retention and sizes are the operator's to change.
    """
    async with _admin(connection) as admin:
        return await _problems(admin, partitions, suffix)


async def alter_topic(connection: Mapping[str, Any], name: str, settings: Mapping[str, str]) -> None:
    """Give a topic these settings of its own; those it had of its own and that are not given here go.

    Raises:
        TopicError: Kafka refuses.
    """
    async with _admin(connection) as admin:
        wanted = ConfigResource(ConfigResourceType.TOPIC, name, configs=dict(settings))
        for response in await admin.alter_configs([wanted]):
            for code, message, *_ in response.resources:
                if code:
                    raise TopicError(f"{name}: {message or for_code(code).__name__}")


def _must_match(topic: Topic) -> dict[str, str]:
    return {
        "cleanup.policy": "compact" if topic.compacted else "delete",
        "message.timestamp.type": topic.timestamps,
    }


async def _create(admin: AIOKafkaAdminClient, topics: list[NewTopic]) -> list[str]:
    if not topics:
        return []
    for name, code, message in (await admin.create_topics(topics)).topic_errors:
        if code not in (0, TopicAlreadyExistsError.errno):  # another process may have been faster
            raise TopicError(f"{name}: {message or for_code(code).__name__}")
    names = [topic.name for topic in topics]
    await _await_leaders(admin, names)
    return names


async def _await_leaders(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    """The controller creates; brokers learn of it, and of the partitions' leaders, a moment later."""
    async with asyncio.timeout(METADATA_SECONDS):
        while True:
            topics = await admin.describe_topics(names)
            leaders = [partition["leader"] for topic in topics for partition in topic["partitions"]]
            if all(topic["error_code"] == 0 for topic in topics) and min(leaders) >= 0:
                return
            await asyncio.sleep(0.05)


async def _problems(admin: AIOKafkaAdminClient, partitions: int, suffix: str) -> list[str]:
    existing = set(await admin.list_topics())
    missing = [named(topic, suffix) for topic in ALL if named(topic, suffix) not in existing]
    return [f"{name}: does not exist" for name in missing] + await _wrong(admin, existing, partitions, suffix)


async def _wrong(admin: AIOKafkaAdminClient, existing: set[str], partitions: int, suffix: str) -> list[str]:
    """What is wrong with those topics that exist."""
    present = {named(topic, suffix): topic for topic in ALL if named(topic, suffix) in existing}
    if not present:
        return []
    problems = []
    for entry in await admin.describe_topics(list(present)):
        topic = present[entry["topic"]]
        count = partitions if topic.like_events else topic.partitions
        if len(entry["partitions"]) != count:
            problems.append(f"{entry['topic']}: partitions is {len(entry['partitions'])}, must be {count}")
    for name, found in (await _configurations(admin, list(present))).items():
        for setting, value in _must_match(present[name]).items():
            if found[setting] != value:
                problems.append(f"{name}: {setting} is {found[setting]}, must be {value}")
    return problems


async def _configurations(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    """Settings in force of topics that exist."""
    found: dict[str, dict[str, str]] = {}
    wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    for response in await admin.describe_configs(wanted):
        for code, message, _, name, entries in response.resources:
            if code:
                raise TopicError(f"{name}: {message or for_code(code).__name__}")
            found[name] = {entry[0]: entry[1] for entry in entries}
    return found


@asynccontextmanager
async def _admin(connection: Mapping[str, Any]) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**connection)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()
