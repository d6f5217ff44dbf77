"""The detect lane under what happens to workers and brokers: nothing lost, nothing twice, no wrong state."""

import signal
import time
from pathlib import Path

from streams.embedded.kafka import KafkaCluster
from tests.integration.harness import Fleet, assert_exact


def test_kill_9_in_the_middle_of_batches_three_times(kafka: KafkaCluster, run_id: str, tmp_path: Path) -> None:
    fleet = Fleet(kafka, run_id, tmp_path, POINTSMAN_KAFKA_INSTANCE_ID="w1")
    worker = fleet.worker("w1")
    with fleet.traffic(per_second=400) as traffic, worker:
        for _ in range(3):
            traffic.wait_for(traffic.requests + 800)
            worker.kill()
            worker.start().await_ready()
        traffic.wait_for(traffic.requests + 500)
    with worker:
        found = fleet.exactness()
    assert worker.exit_code() == 0
    assert_exact(found, traffic.requests)
    assert found.repeated > 0, "nothing was done again: no kill was in the middle of anything"


def test_workers_come_and_go_while_traffic_flows(cluster: KafkaCluster, run_id: str, tmp_path: Path) -> None:
    fleet = Fleet(cluster, run_id, tmp_path)
    first, second = fleet.worker("first"), fleet.worker("second")
    with first:
        with fleet.traffic() as traffic:
            for _ in range(2):
                second.start().await_ready()
                traffic.wait_for(traffic.requests + 600)
                assert second.stop() == 0
                traffic.wait_for(traffic.requests + 300)
        found = fleet.exactness()
    assert_exact(found, traffic.requests)


def test_a_broker_is_gone_for_a_while(cluster: KafkaCluster, run_id: str, tmp_path: Path) -> None:
    fleet = Fleet(cluster, run_id, tmp_path)
    with fleet.worker("w1"):
        try:
            with fleet.traffic() as traffic:
                traffic.wait_for(600)
                cluster.stop_node(2, kill=True)
                traffic.wait_for(traffic.requests + 1_500)
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
        with fleet.traffic(per_second=200) as traffic, other:
            frozen.start().await_ready()
            traffic.wait_for(traffic.requests + 400)
            frozen.signal(signal.SIGSTOP)
            time.sleep(9)  # past the session of 6 s: the group gives its partitions to the other
            traffic.wait_for(traffic.requests + 400)
            frozen.signal(signal.SIGCONT)
            traffic.wait_for(traffic.requests + 600)
            thawed = frozen.exit_code()
        with other:
            found = fleet.exactness()
    finally:
        frozen.signal(signal.SIGCONT) if frozen.exit_code() is None else None
        frozen.stop()
    assert thawed in (None, 1), "thawed, it either rejoined or ended without a checkpoint"
    assert_exact(found, traffic.requests)
