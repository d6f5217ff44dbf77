import asyncio
import json
from collections.abc import Sequence

import pytest
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner, Result

from schemas.codec import UNREADABLE_HEADERS, InvalidRecord, Record, dead_letter, stable_id
from schemas.deadletters import InvalidReason
from schemas.topics import DEADLETTERS, EVENTS, FEEDBACK, named
from streams.cli import main
from streams.embedded.kafka import KafkaCluster
from streams.kafka import read_to_end
from streams.replay import FileRecord
from streams.topics import create_topics

SECRET = b'{"prompt_text": "my secret \x1b[31m'
HEADERS = (("ce_type", b"x"), ("empty", b""))


def run(kafka: KafkaCluster, run_id: str, *arguments: str) -> Result:
    environment = {"POINTSMAN_KAFKA_BOOTSTRAP": kafka.bootstrap, "POINTSMAN_KAFKA_TOPIC_SUFFIX": run_id}
    return CliRunner(env=environment).invoke(main, ["dlq", *arguments])


def events(kafka: KafkaCluster, run_id: str) -> list[Record]:
    async def read() -> list[Record]:
        return [record async for record in read_to_end(kafka.connection, named(EVENTS, run_id))]

    return asyncio.run(read())


def letter_id(run_id: str, offset: int) -> str:
    return stable_id(named(EVENTS, run_id), "0", str(offset))


@pytest.fixture
def written(kafka: KafkaCluster, run_id: str) -> None:
    """Letter 0 twice, as after a restart; 1 without key; 2 and 3 without all bytes; no letter."""
    topic = named(EVENTS, run_id)

    async def write() -> None:
        await create_topics(kafka.connection, 1, 1, run_id)
        async with AIOKafkaProducer(**kafka.connection, max_request_size=2 << 20) as producer:

            async def send(
                offset: int, reason: InvalidReason, value: bytes, key: bytes, headers: Sequence[tuple[str, bytes]]
            ) -> None:
                record = FileRecord(topic, offset, 1_790_000_000_000 + offset, value, key, headers=tuple(headers))
                error = InvalidRecord(reason, record, "$.prompt_text", "truncated")
                key, value, ours = dead_letter(error, record, "decode")
                await producer.send_and_wait(named(DEADLETTERS, run_id), value, key=key, headers=list(ours))

            await send(0, "not_json", SECRET, b"p1", HEADERS)
            await send(0, "not_json", SECRET, b"p1", HEADERS)
            await send(1, "missing_field", b"{}", b"", ())
            await send(2, "bad_envelope", b"", b"", UNREADABLE_HEADERS)
            await send(3, "too_large", b" " * (3 << 20), b"p1", HEADERS)
            await producer.send_and_wait(named(DEADLETTERS, run_id), b"no letter")

    asyncio.run(write())


@pytest.mark.usefixtures("written")
def test_ls_show_and_retry(kafka: KafkaCluster, run_id: str) -> None:
    ids = [letter_id(run_id, offset) for offset in range(4)]
    listed = run(kafka, run_id, "ls")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ids
    assert "decode not_json at $".replace("$", "\\u0024") in listed.stdout
    assert "secret" not in listed.stdout
    assert "skipped: bad_envelope" in listed.stderr
    found = json.loads(run(kafka, run_id, "ls", "--reason", "missing_field", "--json").stdout)
    assert [letter["letter_id"] for letter in found] == [ids[1]]
    assert run(kafka, run_id, "ls", "--stage", "judge").stdout == "no dead letters\n"

    assert "secret" not in run(kafka, run_id, "show", ids[0]).stdout
    shown = run(kafka, run_id, "show", ids[0], "--content").stdout
    assert "my secret \\x1b[31m" in shown
    assert "\x1b" not in shown
    assert run(kafka, run_id, "show", "nothing").exit_code == 1

    assert run(kafka, run_id, "retry").exit_code == 2
    assert "would publish 2 again" in run(kafka, run_id, "retry", "--all", "--dry-run").stdout
    assert events(kafka, run_id) == []

    told = json.loads(run(kafka, run_id, "retry", "--all", "--json").stdout)
    assert told == {"dry_run": False, "published": ids[:2], "without_bytes": ids[2:], "relayed": []}
    assert [(record.key, record.value, tuple(record.headers)) for record in events(kafka, run_id)] == [
        (b"p1", SECRET, HEADERS),
        (None, b"{}", ()),
    ]
    assert "published 1 again" in run(kafka, run_id, "retry", "--id", ids[1]).stdout
    assert len(events(kafka, run_id)) == 3


async def test_what_was_relayed_is_not_said_to_be_published(kafka: KafkaCluster, run_id: str) -> None:
    await create_topics(kafka.connection, 1, 1, run_id)
    topic, headers = named(FEEDBACK, run_id), (("x-origin", b"router.audits.v1:0:7"),)
    record = FileRecord(topic, 3, 1_790_000_000_000, b"{}", b"k", headers=headers)
    error = InvalidRecord("missing_field", record, "$.ticket_id")
    key, value, ours = dead_letter(error, record, "feedback")
    async with AIOKafkaProducer(**kafka.connection) as producer:
        await producer.send_and_wait(named(DEADLETTERS, run_id), value, key=key, headers=list(ours))
    told = json.loads((await asyncio.to_thread(run, kafka, run_id, "retry", "--all", "--json")).stdout)
    assert (told["published"], told["relayed"]) == ([], [stable_id(topic, "0", "3")])
    assert [record async for record in read_to_end(kafka.connection, topic)] == []


@pytest.mark.usefixtures("written")
def test_show_takes_the_beginning_of_an_id(kafka: KafkaCluster, run_id: str) -> None:
    whole = letter_id(run_id, 1)
    assert whole in run(kafka, run_id, "show", whole[:12]).stdout
    several = run(kafka, run_id, "show", "")
    assert several.exit_code == 1
    assert "4 dead letters begin with ''" in several.stderr


@pytest.mark.parametrize("command", [("dlq", "ls"), ("alerts", "ls"), ("alerts", "suppressions")])
def test_brokers_without_our_topics_are_no_quiet_fleet(kafka: KafkaCluster, command: tuple[str, ...]) -> None:
    environment = {"POINTSMAN_KAFKA_BOOTSTRAP": kafka.bootstrap, "POINTSMAN_KAFKA_TOPIC_SUFFIX": "-nowhere"}
    result = CliRunner(env=environment).invoke(main, command)
    assert result.exit_code == 1
    assert "have no topic" in result.stderr
