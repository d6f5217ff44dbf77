"""Transplants on real Kafka: what is wanted is answered in its topic, also by a router's failure."""

import asyncio

import msgspec
from aiokafka import AIOKafkaProducer

from schemas.codec import encode
from schemas.topics import FINDINGS, named
from schemas.verdicts import Finding, Transplant
from streams.embedded.kafka import KafkaCluster
from streams.health import Health
from streams.kafka import read_to_end
from streams.lanes.transplant import Transplanter
from streams.settings import Fleet, Kafka, Settings
from streams.topics import create_topics
from tests.factories import at


async def test_a_router_that_cannot_be_asked_is_an_answer_and_rubbish_stops_nothing(
    kafka: KafkaCluster, run_id: str
) -> None:
    await create_topics(kafka.connection, 1, 1, run_id)
    topic = named(FINDINGS, run_id)
    wanted = Finding(
        finding_id="f1", kind="transplant", category="cost_escalation", severity="info", time=at(0), labels={},
        detector="discovery", detector_version="1", transplant=Transplant(test_id="x", text="a window", probes=4),
    )  # fmt: skip
    fleet = Fleet(router_url="http://127.0.0.1:1/", router_timeout_seconds=1.0)
    settings = Settings(kafka=Kafka(bootstrap=kafka.bootstrap, topic_suffix=run_id), fleet=fleet)
    transplanter = Transplanter(settings, kafka.connection, Health())
    await transplanter.on_start()
    try:
        async with asyncio.timeout(60), AIOKafkaProducer(**kafka.connection) as producer:
            while not transplanter.consumer.assignment():
                await transplanter.step()
            for value in (b'{"transplant": nonsense', encode(wanted)):
                await producer.send_and_wait(topic, value, key=b"x")
            answers: list[Finding] = []
            while not answers:
                await transplanter.step()
                found = [record.value or b"" async for record in read_to_end(kafka.connection, topic)]
                answers = [msgspec.json.decode(value, type=Finding) for value in found if b"failed" in value]
    finally:
        await transplanter.on_stop()
    (answer,) = answers
    assert answer.transplant is not None
    assert answer.transplant.is_answer
    assert (answer.transplant.test_id, answer.finding_id) == ("x", "f1")
