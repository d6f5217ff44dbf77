"""The example of docs/gateways/python.md, run as it stands."""

import asyncio
import re
from pathlib import Path

import pytest

from schemas.codec import decode_event
from schemas.topics import EVENTS, named
from streams.embedded.kafka import KafkaCluster
from streams.kafka import read_to_end
from streams.topics import create_topics

PAGE = Path(__file__).parents[3] / "docs" / "gateways" / "python.md"


async def test_the_example_publishes_a_request_with_its_route_and_outcome(
    kafka: KafkaCluster, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    brokers = {"bootstrap_servers": kafka.bootstrap}
    await create_topics(brokers, 1, 1, run_id)
    monkeypatch.setenv("POINTSMAN_KAFKA_BOOTSTRAP", kafka.bootstrap)
    monkeypatch.setenv("POINTSMAN_KAFKA_TOPIC_SUFFIX", run_id)
    monkeypatch.setenv("POINTSMAN_GATEWAY_IDENTITY_KEY", "a key of the tests' own")
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    scope: dict[str, object] = {}
    await asyncio.to_thread(exec, example, scope)
    events = [decode_event(record) async for record in read_to_end(brokers, named(EVENTS, run_id))]
    assert [type(event).__name__ for event in events] == ["Request", "Route", "Outcome"]
    assert len({(event.request_id, event.principal_hash) for event in events if event}) == 1
    assert all("sk-user-1" not in event.principal_hash for event in events if event)
