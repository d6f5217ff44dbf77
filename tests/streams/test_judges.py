"""Judges that answer by themselves, on real Kafka: each ticket once, whatever fails; and the queue of people."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner

from loadtests.hostile import send_undecodable
from schemas.audits import AuditLabel, AuditTicket
from schemas.codec import encode
from schemas.topics import AUDITS, TICKETS, named
from streams.cli import main
from streams.embedded.kafka import KafkaCluster
from streams.judges import NONSENSE_TRIES, Answer, HttpJudge, LocalJudge, _answered, judge_all, open_tickets
from streams.kafka import read_to_end
from streams.settings import Kafka
from streams.topics import create_topics

NOW = datetime.now(UTC)


def ticket(name: str, hours: float = 1.0, score: float = 0.5) -> AuditTicket:
    return AuditTicket(
        ticket_id=name, request_id=f"r-{name}", tenant_id="t1", principal_hash="p1", detector="novelty",
        parameter="novelty.flag", score=score, threshold=0.999, threshold_version=0, issued_at=NOW,
        expires_at=NOW + timedelta(hours=hours),
    )  # fmt: skip


@pytest.fixture
async def brokers(kafka: KafkaCluster, run_id: str) -> Kafka:
    """Topics with three open tickets and one that has expired."""
    await create_topics(kafka.connection, 1, 1, run_id)
    async with AIOKafkaProducer(**kafka.connection) as producer:
        for each in (ticket("old", -1), ticket("a"), ticket("b", score=0.99), ticket("c")):
            await producer.send_and_wait(named(TICKETS, run_id), encode(each), key=each.ticket_id.encode())
    return Kafka(bootstrap=kafka.bootstrap, topic_suffix=run_id)


async def labels(brokers: Kafka) -> list[AuditLabel]:
    topic = named(AUDITS, brokers.topic_suffix)
    found = [r async for r in read_to_end({"bootstrap_servers": brokers.bootstrap}, topic)]
    return [msgspec.json.decode(record.value or b"", type=AuditLabel) for record in found]


async def test_a_service_that_fails_is_asked_again_and_each_ticket_is_answered_once(brokers: Kafka) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((await request.json())["ticket"]["ticket_id"])
        if len(asked) == 1:
            return web.Response(status=503)
        if len(asked) == 2:
            return web.json_response({"label": "perhaps"})
        return web.json_response({"label": "unsafe", "confidence": 0.7, "model": "of theirs"})

    app = web.Application()
    app.router.add_post("/judge", answer)
    async with TestServer(app) as server:
        url = str(server.make_url("/judge"))
        assert await judge_all(brokers, HttpJudge(url), "service", once=True, first_wait=0.01) == 3
        assert await judge_all(brokers, HttpJudge(url), "service", once=True) == 0
    assert asked == ["a", "a", "a", "b", "c"]
    found = await labels(brokers)
    assert [(label.ticket.ticket_id, label.label, label.confidence, label.judge) for label in found] == [
        (name, "unsafe", 0.7, "service") for name in "abc"
    ]
    assert await open_tickets(brokers) == []


async def test_a_ticket_that_gets_nonsense_every_time_is_left_to_people(brokers: Kafka) -> None:
    said = {"b": "safe", "c": "unsafe"}  # of "a" the classifier raises
    judge = LocalJudge(lambda asked: said[asked["ticket_id"]])
    assert await judge_all(brokers, judge, "local", once=True, first_wait=0.01) == 2
    assert [left.ticket_id for left in await open_tickets(brokers)] == ["a"]


@pytest.mark.parametrize(
    "body", [b'{"label": "\xff"}', b'{"more": ' + b"[" * 100_000], ids=["not utf-8", "bottomless"]
)
async def test_an_answer_that_cannot_be_read_is_nonsense(body: bytes) -> None:
    asked = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(body=body)

    app = web.Application()
    app.router.add_post("/judge", answer)
    async with TestServer(app) as server:
        assert await _answered(ticket("a"), HttpJudge(str(server.make_url("/judge"))), "service", 0.01) is None
    assert asked == NONSENSE_TRIES


async def test_what_is_no_ticket_is_passed_over(brokers: Kafka) -> None:
    async with AIOKafkaProducer(bootstrap_servers=brokers.bootstrap) as producer:
        topic = named(TICKETS, brokers.topic_suffix)
        await producer.send_and_wait(topic, b"{", key=b"k")
        await send_undecodable(producer, topic, 0)
        await producer.send_and_wait(topic, encode(ticket("d")), key=b"d")
    assert len(await open_tickets(brokers)) == 4
    assert await judge_all(brokers, LocalJudge(lambda _: "safe"), "local", once=True) == 4


async def test_a_function_answers_with_a_label_or_more(brokers: Kafka) -> None:
    def classify(asked: dict[str, Any]) -> Any:
        return {"label": "unsafe", "reason": "high"} if asked["score"] > 0.9 else "safe"

    assert await judge_all(brokers, LocalJudge(classify), "local", once=True) == 3
    assert [(label.label, label.reason) for label in await labels(brokers)] == [
        ("safe", ""), ("unsafe", "high"), ("safe", ""),
    ]  # fmt: skip


async def test_a_function_that_says_nonsense_is_an_error() -> None:
    with pytest.raises(msgspec.ValidationError):
        await LocalJudge(lambda _: "fine")(ticket("a"))
    assert await LocalJudge(lambda _: "safe")(ticket("a")) == Answer(label="safe")


def test_people_see_the_queue_and_answer_one_or_many(kafka: KafkaCluster, brokers: Kafka, tmp_path: Path) -> None:
    environment = {
        "POINTSMAN_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "POINTSMAN_KAFKA_TOPIC_SUFFIX": brokers.topic_suffix,
    }

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["audit", *arguments], env=environment)
        return result.exit_code, result.output

    code, output = run("next", "--count", "2")
    assert code == 0
    assert "r-a" in output
    assert "r-c" not in output
    assert "3 open" in output
    assert run("label", "a", "safe", "--judge", "ann") == (0, "answered 1\n")
    code, output = run("label", "a", "unsafe", "--judge", "ann")
    assert (code, "not open: a" in output) == (1, True)
    batch = tmp_path / "batch.jsonl"
    batch.write_text('{"ticket_id": "b", "label": "unsafe"}\n{"ticket_id": "nobody", "label": "safe"}\n')
    assert run("label", "--file", str(batch), "--judge", "ann")[0] == 1
    code, output = run("next", "--count", "2", "--json")
    assert [ticket["ticket_id"] for ticket in json.loads(output)] == ["b", "c"]
    batch.write_text('[{"ticket_id": "b"}]')
    assert (
        "the list: Object missing required field `label`" in run("label", "--file", str(batch), "--judge", "x")[1]
    )
    batch.write_text('{"ticket_id": "b", "label": "unsafe"}\n{"ticket_id": "c", "label": "unknown"}\n')
    code, output = run("label", "--file", str(batch), "--judge", "ann", "--json")
    assert (code, json.loads(output)) == (0, {"answered": ["b", "c"]})
    batch.write_text('{"ticket_id": "b"}\n')
    assert "line 1" in run("label", "--file", str(batch), "--judge", "ann")[1]
    assert run("next") == (0, "no open tickets\n")
    assert run("next", "--json") == (0, "[]\n")
    assert run("label", "--judge", "ann")[0] == 2
    assert run("serve", "--judge", "x")[0] == 2
    assert "no classifier" in run("serve", "--judge", "x", "--classifier", "nowhere:nothing")[1]
