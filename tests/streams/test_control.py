"""The control topics before the lanes start."""

from typing import Any

import faust

from detectors.panel import build_panel
from detectors.thresholds import Thresholds
from streams.control import Control
from streams.embedded.kafka import KafkaCluster
from streams.health import Health
from streams.topics import create_topics


async def test_the_panel_is_warm_before_anything_is_ready(
    kafka: KafkaCluster, run_id: str, monkeypatch: Any
) -> None:
    """Compiling at the first batch held every partition for as long: 10 s of CPU where no cache can be written."""
    await create_topics(kafka.connection, 1, 1, run_id)
    panel, health = build_panel(Thresholds()), Health(expected=("catalogue",))
    ready_when_warmed: list[bool] = []
    monkeypatch.setattr(panel, "warm_up", lambda: ready_when_warmed.append(health.is_ready()))
    app = faust.App(f"control{run_id}", broker=f"kafka://{kafka.bootstrap}", store="memory://")
    await Control(app, kafka.connection, health, panel, run_id).on_start()
    assert ready_when_warmed == [False]
    assert health.is_ready()
