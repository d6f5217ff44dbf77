"""Checkpoints when a delivery fails, without brokers (with them: tests/integration/test_lane.py)."""

import asyncio
from collections import Counter
from typing import Any

from schemas.topics import CHECKPOINTS, EVENTS
from streams.deadletters import DeadLetterLimit
from streams.lanespec import LaneSpec
from streams.partitions import Owned, Partitions


class Processor:
    def __init__(self) -> None:
        self.offset = 10
        self.counters: Counter[str] = Counter()

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        return [(b"marker", b"%d" % self.offset)]


class Checkpoints:
    def __init__(self) -> None:
        self.written: list[Any] = []

    async def write(self, changes: Any) -> None:
        self.written.append(changes)

    async def close(self) -> None:
        """Nothing is held."""


async def test_no_marker_passes_over_effects_that_were_not_delivered() -> None:
    """A delivery fails while the partition is given up: its last checkpoint must not cover what was lost."""
    made: Any = Processor
    partitions = Partitions(LaneSpec("test", EVENTS, CHECKPOINTS, "group", made), {}, "")
    processor, checkpoints = made(), Checkpoints()
    log: Any = checkpoints
    owned = partitions.owned[0] = Owned(0, processor, log, DeadLetterLimit(1.0, 1), loaded=True)
    delivery: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    owned.deliveries.append(delivery)
    periodic = asyncio.create_task(partitions.checkpoint_due())
    await asyncio.sleep(0.01)
    giving_up = asyncio.create_task(partitions.close())
    await asyncio.sleep(0.01)
    delivery.set_exception(RuntimeError("not delivered"))
    await asyncio.gather(periodic, giving_up)
    assert checkpoints.written == []
    assert partitions._left == {}
