"""The publisher: what is sent arrives whole, and what cannot be sent costs the gateway nothing."""

import asyncio
import threading
import time

import pytest

from schemas.codec import decode_event
from schemas.events import Request
from schemas.topics import EVENTS, named
from streams.embedded.kafka import KafkaCluster
from streams.gateways.publisher import Publisher, from_settings
from streams.kafka import read_to_end
from streams.settings import Gateway, Kafka, Settings, SettingsError
from streams.topics import create_topics
from tests.factories import outcome, request

NOBODY = {"bootstrap_servers": "127.0.0.1:9"}  # the discard port: refused


def now_ms() -> int:
    return round(time.time() * 1000)


async def test_events_arrive_from_many_threads_keyed_and_in_envelopes(kafka: KafkaCluster, run_id: str) -> None:
    brokers = {"bootstrap_servers": kafka.bootstrap}
    await create_topics(brokers, 3, 1, run_id)
    settings = Settings(
        kafka=Kafka(bootstrap=kafka.bootstrap, topic_suffix=run_id), gateway=Gateway(instance="pod-7")
    )
    publisher = from_settings(settings, "python")

    def publish(thread: int) -> None:
        for n in range(50):
            assert publisher.publish(request(f"r{thread}-{n}", f"p{thread}", now_ms()), traceparent="00-ab-cd-01")

    threads = [threading.Thread(target=publish, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert await publisher.close(30.0)
    assert publisher.counts == {"ok": 200}
    records = [record async for record in read_to_end(brokers, named(EVENTS, run_id))]
    events = [decode_event(record) for record in records]
    assert {e.request_id for e in events if e} == {f"r{t}-{n}" for t in range(4) for n in range(50)}
    for record, event in zip(records, events, strict=True):
        headers = dict(record.headers)
        assert isinstance(event, Request)
        assert record.key == event.principal_hash.encode()
        assert headers["ce_source"] == b"//python/pod-7"
        assert headers["ce_traceparent"] == b"00-ab-cd-01"
        assert headers["ce_type"] == b"pointsman.llmrouter.request.v1"
    for thread_no in range(4):  # one principal's events stay in order
        own = [e.request_id for e in events if e and e.principal_hash == f"p{thread_no}"]
        assert own == [f"r{thread_no}-{n}" for n in range(50)]


async def test_a_dead_broker_costs_counted_events_and_nothing_else() -> None:
    publisher = Publisher(NOBODY, "//python/test", queue_bytes=100_000)
    results = [publisher.publish(request(f"r{n}", prompt_text="x" * 1000)) for n in range(500)]
    accepted = sum(results)
    assert 0 < accepted < 100
    assert not results[-1]
    assert publisher.queued_bytes <= 100_000
    assert publisher.dropped == 500 - accepted
    assert not await publisher.close(0.2)
    assert publisher.dropped == 500, "what could not be sent is counted too"
    assert publisher.queued_bytes == 0
    assert not publisher.publish(request("late"))
    assert publisher.dropped == 501


async def test_what_is_queued_is_sent_when_the_brokers_come(kafka: KafkaCluster, run_id: str) -> None:
    await create_topics({"bootstrap_servers": kafka.bootstrap}, 1, 1, run_id)
    host, port = kafka.bootstrap.split(",")[0].split(":")

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, int(port))

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    server.close()  # the port is free again: nobody answers yet
    await server.wait_closed()
    publisher = Publisher(
        {"bootstrap_servers": f"127.0.0.1:{address[1]}"}, "//python/test", topic=named(EVENTS, run_id)
    )
    assert publisher.publish(request())
    await asyncio.sleep(0.3)  # the first try fails meanwhile
    assert publisher.counts == {}
    server = await asyncio.start_server(forward, "127.0.0.1", address[1])
    try:
        assert await publisher.close(30.0)
    finally:
        server.close()
    assert publisher.counts == {"ok": 1}


@pytest.mark.parametrize(
    "event",
    [
        request(principal=""),
        request(request_id="r" * 300),
        request(prompt_text="\ud800"),
        request(prompt_text="x" * (1 << 20)),
        outcome(cost_usd=float("nan"), duration_s=1e9),
        None,
    ],
)
def test_an_invalid_event_is_counted_not_raised(event: Request) -> None:
    publisher = Publisher(NOBODY, "//python/test")
    assert not publisher.publish(event)
    assert publisher.counts == {"invalid": 1}
    assert publisher.stop(), "it was never started"


def test_settings_without_brokers_are_an_error() -> None:
    with pytest.raises(SettingsError, match="POINTSMAN_KAFKA_BOOTSTRAP"):
        from_settings(Settings(), "litellm")
