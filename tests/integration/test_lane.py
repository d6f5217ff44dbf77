"""The detect lane under what happens to workers and brokers: nothing lost, nothing twice, no wrong state."""

import asyncio
import contextlib
import signal
import time
from pathlib import Path

import msgspec
import psutil
import pytest
from aiokafka import AIOKafkaProducer

from loadtests.workers import Worker, WorkerFailed
from schemas.codec import encode
from schemas.topics import CHECKPOINTS, EVENTS, VERDICTS, named
from schemas.verdicts import Verdict
from streams.embedded.kafka import KafkaCluster
from streams.kafka import read_to_end
from tests.factories import request, route
from tests.integration.harness import (
    CATCH_UP_SECONDS,
    PARTITIONS,
    Fleet,
    assert_exact,
    await_all_partitions,
    partitions_of,
)

FLOOD = 6_000  # requests


def test_kill_9_in_the_middle_of_batches_three_times(kafka: KafkaCluster, run_id: str, tmp_path: Path) -> None:
    fleet = Fleet(kafka, run_id, tmp_path, POINTSMAN_KAFKA_INSTANCE_ID="w1")
    worker = fleet.worker("w1")
    with worker:
        with fleet.traffic() as traffic:
            for _ in range(3):
                traffic.wait_for(traffic.requests + 300)
                worker.kill()
                worker.start().await_ready()
            traffic.wait_for(traffic.requests + 200)
        found = fleet.exactness()
    assert worker.exit_code() == 0
    assert_exact(found, traffic.requests)
    assert found.repeated > 0, "nothing was done again: no kill was in the middle of anything"


def test_a_failure_in_the_middle_of_a_batch_ends_the_worker_without_a_checkpoint(
    kafka: KafkaCluster, run_id: str, tmp_path: Path
) -> None:
    """An agent that raises would be restarted by Faust, its batch lost in silence."""
    fleet = Fleet(kafka, run_id, tmp_path, POINTSMAN_DETECT_CHECKPOINT_SECONDS="0.2")
    with fleet.traffic() as traffic:
        traffic.wait_for(500)
        failed = fleet.run("tests.integration.raising_worker", "8")
    assert failed.returncode == 1, failed.stderr
    assert "planted" in failed.stderr
    with fleet.worker("w1"):
        found = fleet.exactness()
    assert_exact(found, traffic.requests)


def test_a_checkpoint_that_cannot_be_read_ends_the_worker_and_says_where(
    kafka: KafkaCluster, run_id: str, tmp_path: Path
) -> None:
    """Nothing is judged with half a state; in the rebalance listener an exception would only be logged."""
    fleet = Fleet(kafka, run_id, tmp_path)
    fleet.produce(CHECKPOINTS, b"\xc1 no marker", key=b"marker", partition=2)
    worker = fleet.worker("w1").start()
    with contextlib.closing(_Killed(worker)), pytest.raises(WorkerFailed, match="ended with 1"):
        worker.await_ready()
    assert f"{named(CHECKPOINTS, run_id)}[2] offset 0 cannot be loaded" in worker.log.read_text()


def test_a_worker_listens_at_no_port_but_its_own(kafka: KafkaCluster, run_id: str, tmp_path: Path) -> None:
    """Faust would open 6066 to the world, and a second worker on the machine would die of it."""
    fleet = Fleet(kafka, run_id, tmp_path)
    with fleet.worker("w1") as worker:
        listening = [c.laddr for c in psutil.Process(worker.pid).net_connections() if c.status == "LISTEN"]
    assert [address.ip for address in listening] == ["127.0.0.1"]


def test_of_two_processes_with_one_instance_id_one_ends(kafka: KafkaCluster, run_id: str, tmp_path: Path) -> None:
    """A pod started twice by mistake: the group and the checkpoint log fence one of them, which one is a race."""
    fleet = Fleet(kafka, run_id, tmp_path, POINTSMAN_KAFKA_INSTANCE_ID="the-one")
    workers = [fleet.worker("older"), fleet.worker("newer")]
    with workers[0], contextlib.closing(_Killed(workers[1].start())):
        with fleet.traffic() as traffic:
            deadline = time.monotonic() + CATCH_UP_SECONDS
            while not any(worker.exit_code() for worker in workers) and time.monotonic() < deadline:
                traffic.wait_for(traffic.requests + 10)  # without traffic nothing is written that could be fenced
            assert sorted(str(worker.exit_code()) for worker in workers) == ["1", "None"]
            traffic.wait_for(traffic.requests + 150)
        found = fleet.exactness()
    assert_exact(found, traffic.requests)


def test_of_two_processes_with_one_instance_id_one_ends_though_nothing_comes(
    kafka: KafkaCluster, run_id: str, tmp_path: Path
) -> None:
    """They would take each other's place for ever: aiokafka's heartbeats say nothing of the instance id."""
    fleet = Fleet(kafka, run_id, tmp_path, POINTSMAN_KAFKA_INSTANCE_ID="the-one")
    workers = [fleet.worker("older"), fleet.worker("newer")]
    with workers[0], contextlib.closing(_Killed(workers[1].start())):
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while not any(worker.exit_code() for worker in workers) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert sorted(str(worker.exit_code()) for worker in workers) == ["1", "None"]
        ended, left = sorted(workers, key=lambda worker: worker.exit_code() is None)
        assert "another process run with kafka.instance_id 'the-one'" in ended.log.read_text()
        await_all_partitions(left)
        with fleet.traffic() as traffic:
            traffic.wait_for(150)
        found = fleet.exactness()
    assert_exact(found, traffic.requests)


def test_a_flood_on_one_partition_holds_up_no_other(kafka: KafkaCluster, run_id: str, tmp_path: Path) -> None:
    """A backlog of one caller before everybody else's: theirs is judged while the flood's has hardly begun."""
    fleet = Fleet(kafka, run_id, tmp_path)
    asyncio.run(_publish(fleet, [f"flood{n}" for n in range(FLOOD)], 0))
    asyncio.run(_publish(fleet, [f"other{n}" for n in range(20)], 1))
    with fleet.worker("w1"):
        found = fleet.exactness()
    assert found.exact
    published = asyncio.run(_published(fleet))
    last = max(at for name, at in published.items() if name.startswith("other"))
    before = sum(at < last for name, at in published.items() if name.startswith("flood"))
    assert before <= FLOOD / 3, f"{before} of the flood's verdicts came before the last of the others'"


async def _publish(fleet: Fleet, requests: list[str], partition: int) -> None:
    async with AIOKafkaProducer(**fleet.brokers, linger_ms=5) as producer:
        now = round(time.time() * 1000)
        for name in requests:
            for event in (request(name, f"p{partition}", now), route(name, f"p{partition}", now)):
                await producer.send(
                    named(EVENTS, fleet.suffix), encode(event), key=f"p{partition}".encode(), partition=partition
                )
        await producer.flush()


async def _published(fleet: Fleet) -> dict[str, int]:
    """When the broker took each request's verdict."""
    return {
        msgspec.json.decode(record.value or b"", type=Verdict).request_id: record.timestamp
        async for record in read_to_end(fleet.brokers, named(VERDICTS, fleet.suffix))
    }


class _Killed:
    """Ends a worker that may have ended by itself."""

    def __init__(self, worker: Worker) -> None:
        self.close = worker.kill


def test_workers_come_and_go_while_traffic_flows(cluster: KafkaCluster, run_id: str, tmp_path: Path) -> None:
    fleet = Fleet(cluster, run_id, tmp_path)
    first, second = fleet.worker("first"), fleet.worker("second")
    with first:
        with fleet.traffic() as traffic:
            for _ in range(2):
                second.start().await_ready()
                traffic.wait_for(traffic.requests + 300)
                assert second.stop() == 0
                traffic.wait_for(traffic.requests + 150)
        found = fleet.exactness()
    assert_exact(found, traffic.requests)
    assert "as it was left" in first.log.read_text(), "state that nobody else wrote need not be read again"


def test_a_broker_is_gone_for_a_while(cluster: KafkaCluster, run_id: str, tmp_path: Path) -> None:
    fleet = Fleet(cluster, run_id, tmp_path)
    with fleet.worker("w1"):
        try:
            with fleet.traffic() as traffic:
                traffic.wait_for(300)
                cluster.stop_node(2, kill=True)
                traffic.wait_for(traffic.requests + 750)
        finally:
            cluster.start_node(2)
        found = fleet.exactness()
    assert_exact(found, traffic.requests)


def test_a_worker_frozen_past_its_session_does_no_damage(
    cluster: KafkaCluster, run_id: str, tmp_path: Path
) -> None:
    fleet = Fleet(cluster, run_id, tmp_path)
    frozen, other = fleet.worker("frozen"), fleet.worker("other")
    try:
        with other:
            with fleet.traffic() as traffic:
                frozen.start().await_ready()
                traffic.wait_for(traffic.requests + 150)
                assert partitions_of(other) < PARTITIONS
                frozen.signal(signal.SIGSTOP)
                await_all_partitions(other)  # past the session of the frozen one
                traffic.wait_for(traffic.requests + 150)
                frozen.signal(signal.SIGCONT)
                traffic.wait_for(traffic.requests + 300)
                thawed = frozen.exit_code()
            found = fleet.exactness()
    finally:
        frozen.signal(signal.SIGCONT) if frozen.exit_code() is None else None
        frozen.stop()
    assert thawed in (None, 1), "thawed, it either rejoined or ended without a checkpoint"
    assert_exact(found, traffic.requests)
