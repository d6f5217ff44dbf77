"""CPU of checkpoints: deltas and their transactions, by the lane's own code on a real broker, nothing beside it."""

import secrets
import time
from collections.abc import Sequence

from detectors.judge import Judge, JudgeLimits
from detectors.panel import build_panel
from detectors.processor import Record
from detectors.registry import stream_detectors
from detectors.thresholds import Thresholds
from loadtests.bench.stages import BATCH, CHECKPOINT_EVENTS
from schemas.topics import CHECKPOINTS, named
from streams.checkpoints import Checkpoints
from streams.embedded.kafka import KafkaCluster
from streams.garbage import settled
from streams.topics import create_topics


async def microseconds_per_request(kafka: KafkaCluster, records: Sequence[Record], requests: int) -> float:
    """Process CPU, in µs a request, of a checkpoint every CHECKPOINT_EVENTS events, as the lane writes them."""
    suffix = f".{secrets.token_hex(4)}"
    await create_topics(kafka.connection, 1, kafka.nodes, suffix)
    panel = build_panel(Thresholds())
    judge = Judge(panel, stream_detectors(panel.thresholds), JudgeLimits())
    checkpoints = Checkpoints(kafka.connection, named(CHECKPOINTS, suffix), 0, f"bench{suffix}")
    await checkpoints.fence()
    used, due = 0.0, CHECKPOINT_EVENTS
    try:
        with settled():
            for at in range(0, len(records), BATCH):
                judge.apply(records[at : at + BATCH])
                if at + BATCH >= min(due, len(records)):
                    due += CHECKPOINT_EVENTS
                    began = time.process_time()
                    await checkpoints.write(judge.changes())
                    used += time.process_time() - began
    finally:
        await checkpoints.close()
    return used / requests * 1e6
