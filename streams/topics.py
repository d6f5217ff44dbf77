"""Creates Pointsman's topics as schemas/topics.py has them, and checks those that exist."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code

from schemas.topics import ALL, Topic, named

METADATA_SECONDS = 30.0


class TopicError(RuntimeError):
    """A topic could not be created, or one that exists is not what the table says; names topic and setting."""


def settings(topic: Topic, replication: int) -> dict[str, str]:
    """Kafka's settings of one topic, for a cluster with this replication factor."""
    config = dict(topic.config)
    config["cleanup.policy"] = "compact" if topic.compacted else "delete"
    config["message.timestamp.type"] = topic.timestamps
    if not topic.compacted:
        config["retention.ms"] = str(topic.retention_ms)
    if replication >= 3:
        config["min.insync.replicas"] = "2"
    return config


async def create_topics(
    bootstrap: str,
    partitions: int,
    replication: int,
    *,
    suffix: str = "",
    topics: Iterable[Topic] = ALL,
    **connection: Any,
) -> list[str]:
    """Create the topics that are missing and return their names, once every one of the table can be used.

    `partitions` is the events topic's count; `connection` goes to aiokafka (security_protocol, ssl_context, ...).
    Raises TopicError for a topic that Kafka refuses, or where `check_topics` has something to say about the rest.
    """
    async with _admin(bootstrap, connection) as admin:
        existing = set(await admin.list_topics())
        missing = [topic for topic in topics if named(topic, suffix) not in existing]
        new = [
            NewTopic(
                named(topic, suffix),
                partitions if topic.like_events else topic.partitions,
                replication,
                topic_configs=settings(topic, replication),
            )
            for topic in missing
        ]
        if new:
            for name, code, *message in (await admin.create_topics(new)).topic_errors:
                if code not in (0, TopicAlreadyExistsError.errno):  # another worker may have been faster
                    raise TopicError(f"{name}: {for_code(code).__name__} {' '.join(str(m) for m in message)}")
        await _await_known(admin, [topic.name for topic in new])
        problems = await _problems(admin, partitions, suffix, topics)
    if problems:
        raise TopicError("; ".join(problems))
    return [topic.name for topic in new]


async def check_topics(
    bootstrap: str, partitions: int, *, suffix: str = "", topics: Iterable[Topic] = ALL, **connection: Any
) -> list[str]:
    """What keeps Pointsman from working right on these topics, one sentence each; empty when nothing does.

    Checked is what a wrong answer or lost state would follow from: presence, partition count, cleanup policy and
    who stamps the time. Retention and sizes are the operator's.
    """
    async with _admin(bootstrap, connection) as admin:
        return await _problems(admin, partitions, suffix, topics)


async def _problems(admin: AIOKafkaAdminClient, partitions: int, suffix: str, topics: Iterable[Topic]) -> list[str]:
    wanted = {named(topic, suffix): topic for topic in topics}
    existing = await admin.list_topics()
    present = [name for name in wanted if name in existing]
    counts, configs = await _describe(admin, present) if present else ({}, {})
    problems = [f"{name}: the topic does not exist" for name in wanted if name not in existing]
    for name in present:
        topic = wanted[name]
        should = {
            "partitions": str(partitions if topic.like_events else topic.partitions),
            "cleanup.policy": "compact" if topic.compacted else "delete",
            "message.timestamp.type": topic.timestamps,
        }
        found = {**configs[name], "partitions": str(counts[name])}
        problems += [
            f"{name}: {setting} is {found[setting]}, must be {value}"
            for setting, value in should.items()
            if found[setting] != value
        ]
    return problems


async def _describe(
    admin: AIOKafkaAdminClient, names: list[str]
) -> tuple[dict[str, int], dict[str, dict[str, str]]]:
    """Partition counts, and the settings in force, of topics that exist."""
    counts = {entry["topic"]: len(entry["partitions"]) for entry in await admin.describe_topics(names)}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    configs: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs(resources):
        for code, message, _, name, entries in response.resources:
            if code:
                raise TopicError(f"{name}: {for_code(code).__name__} {message or ''}")
            configs[name] = {entry[0]: entry[1] for entry in entries}
    return counts, configs


async def _await_known(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    """A topic is created at the controller first; brokers learn of it, and of its leaders, a moment later."""
    async with asyncio.timeout(METADATA_SECONDS):
        while names:
            described = await admin.describe_topics(names)
            leaders = [part["leader"] for topic in described for part in topic["partitions"]]
            if all(topic["error_code"] == 0 for topic in described) and min(leaders) >= 0:
                return
            await asyncio.sleep(0.05)


@asynccontextmanager
async def _admin(bootstrap: str, connection: dict[str, Any]) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **connection)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()
