import asyncio
import json

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from click.testing import CliRunner

from schemas.topics import ALL, CHECKPOINTS, EVENTS, VERDICTS, Topic, named
from streams.cli import main
from streams.embedded.kafka import KafkaCluster
from streams.topics import TopicError, check_topics, configuration, create_topics


async def make(kafka: KafkaCluster, name: str, partitions: int, **config: str) -> None:
    """Someone else's topic of that name."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        settings = {key.replace("_", "."): value for key, value in config.items()}
        response = await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=settings)])
        assert [code for _, code, _ in response.topic_errors] == [0]
        while name not in await admin.list_topics():  # noqa: ASYNC110  the broker hears of it later
            await asyncio.sleep(0.02)
    finally:
        await admin.close()


async def test_topics_are_created_once_and_are_as_the_table_says(kafka: KafkaCluster, run_id: str) -> None:
    created = await create_topics(kafka.connection, 4, 1, run_id)
    assert created == [named(topic, run_id) for topic in ALL]
    assert await create_topics(kafka.connection, 4, 1, run_id) == []
    assert await check_topics(kafka.connection, 4, run_id) == []


async def test_two_processes_may_create_at_the_same_time(kafka: KafkaCluster, run_id: str) -> None:
    await asyncio.gather(*(create_topics(kafka.connection, 2, 1, run_id) for _ in range(3)))
    assert await check_topics(kafka.connection, 2, run_id) == []


async def test_the_brokers_clock_is_stream_time(kafka: KafkaCluster, run_id: str) -> None:
    await create_topics(kafka.connection, 1, 1, run_id)
    async with AIOKafkaProducer(**kafka.connection) as producer:
        sent = await producer.send_and_wait(named(EVENTS, run_id), b"{}", timestamp_ms=1_000)
    assert sent.timestamp > 1_600_000_000_000


async def test_missing_topics_are_problems(kafka: KafkaCluster, run_id: str) -> None:
    problems = await check_topics(kafka.connection, 4, run_id)
    assert problems == [f"{named(topic, run_id)}: does not exist" for topic in ALL]


@pytest.mark.parametrize(
    ("topic", "partitions", "config", "problem"),
    [
        (EVENTS, 3, {"message_timestamp_type": "LogAppendTime"}, "partitions is 3, must be 4"),
        (VERDICTS, 4, {"message_timestamp_type": "CreateTime"},
         "message.timestamp.type is CreateTime, must be LogAppendTime"),
        (CHECKPOINTS, 4, {"message_timestamp_type": "LogAppendTime", "cleanup_policy": "delete"},
         "cleanup.policy is delete, must be compact"),
    ],
)  # fmt: skip
async def test_a_topic_that_would_lose_or_mix_state_is_refused(
    kafka: KafkaCluster, run_id: str, topic: Topic, partitions: int, config: dict[str, str], problem: str
) -> None:
    await make(kafka, named(topic, run_id), partitions, **config)
    with pytest.raises(TopicError) as refused:
        await create_topics(kafka.connection, 4, 1, run_id)
    assert str(refused.value) == f"{named(topic, run_id)}: {problem}"


async def test_what_kafka_refuses_is_told(kafka: KafkaCluster, run_id: str) -> None:
    with pytest.raises(TopicError, match=r"router\.events\.v1\..*replica"):
        await create_topics(kafka.connection, 1, 3, run_id)


async def test_three_brokers_hold_three_copies_and_demand_two(cluster: KafkaCluster, run_id: str) -> None:
    await create_topics(cluster.connection, 3, cluster.nodes, run_id)
    admin = AIOKafkaAdminClient(**cluster.connection)
    await admin.start()
    try:
        [entry] = await admin.describe_topics([named(CHECKPOINTS, run_id)])
    finally:
        await admin.close()
    assert {len(partition["replicas"]) for partition in entry["partitions"]} == {3}


@pytest.mark.parametrize("topic", ALL, ids=lambda topic: topic.name)
def test_configuration_of_every_topic(topic: Topic) -> None:
    one, three = configuration(topic, 1), configuration(topic, 3)
    assert ("retention.ms" in one) == (one["cleanup.policy"] == "delete")
    assert "min.insync.replicas" not in one
    assert three == {**one, "min.insync.replicas": "2"}


def test_the_command_creates_then_checks(kafka: KafkaCluster, run_id: str) -> None:
    environment = {
        "POINTSMAN_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "POINTSMAN_KAFKA_PARTITIONS": "2",
        "POINTSMAN_KAFKA_TOPIC_SUFFIX": run_id,
    }

    def run(*arguments: str, **changed: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["topics", *arguments], env={**environment, **changed})
        return result.exit_code, result.output

    code, output = run("check")
    assert code == 1
    assert f"{named(EVENTS, run_id)}: does not exist" in output
    code, output = run("create", "--json")
    assert (code, json.loads(output)) == (0, {"created": [named(topic, run_id) for topic in ALL]})
    assert run("check", "--json") == (0, '{"problems": []}\n')
    code, output = run("check", POINTSMAN_KAFKA_PARTITIONS="3")
    assert code == 1
    assert "partitions is 2, must be 3" in output
    code, output = run("create", POINTSMAN_KAFKA_PARTITIONS="3")
    assert code == 1
    assert "partitions is 2, must be 3" in output


def test_the_command_says_when_no_broker_is_there_or_none_is_named() -> None:
    result = CliRunner().invoke(main, ["topics", "check"], env={"POINTSMAN_KAFKA_BOOTSTRAP": "127.0.0.1:1"})
    assert result.exit_code == 1
    assert "Unable to bootstrap from [('127.0.0.1', 1" in result.output
    result = CliRunner().invoke(main, ["topics", "check"], env={"POINTSMAN_KAFKA_BOOTSTRAP": ""})
    assert result.exit_code == 1
    assert "POINTSMAN_KAFKA_BOOTSTRAP" in result.output
