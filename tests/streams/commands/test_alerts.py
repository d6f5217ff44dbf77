import asyncio
import json
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner, Result

from schemas.codec import encode
from schemas.topics import ALERTS, named
from streams.cli import main
from streams.embedded.kafka import KafkaCluster
from streams.suppressions import read
from streams.topics import create_topics
from tests.streams.notifiers.alerts import PAYLOADS, alert, hostile


def run(kafka: KafkaCluster, run_id: str, *arguments: str) -> Result:
    environment = {"POINTSMAN_KAFKA_BOOTSTRAP": kafka.bootstrap, "POINTSMAN_KAFKA_TOPIC_SUFFIX": run_id}
    return CliRunner(env=environment).invoke(main, ["alerts", *arguments])


@pytest.fixture
def written(kafka: KafkaCluster, run_id: str) -> None:
    async def write() -> None:
        await create_topics(kafka.connection, 2, 1, run_id)
        async with AIOKafkaProducer(**kafka.connection) as producer:
            for state in (
                alert("a"), alert("b"), alert("a", sequence=2, count=10), alert("b", "resolved", 2), alert("b"),
                *(hostile(payload) for payload in PAYLOADS),
            ):  # fmt: skip
                await producer.send_and_wait(named(ALERTS, run_id), encode(state), key=state.fingerprint.encode())
            await producer.send_and_wait(named(ALERTS, run_id), b"broken", key=b"x")

    asyncio.run(write())


@pytest.mark.usefixtures("written")
def test_ls_and_show(kafka: KafkaCluster, run_id: str) -> None:
    firing = json.loads(run(kafka, run_id, "ls", "--json").stdout)
    assert [
        (state["alert_id"], state["count"]) for state in firing if state["fingerprint"] == alert("a").fingerprint
    ] == [("id of a", 10)]
    assert "id of b" not in [state["alert_id"] for state in firing]  # published again after its end: still resolved

    everything = run(kafka, run_id, "ls", "--all")
    assert everything.exit_code == 0
    assert "resolved critical known_trigger trigger_id=b" in everything.stdout
    assert all(line.isprintable() for line in everything.stdout.split("\n"))
    assert not any(payload in everything.stdout for payload in PAYLOADS)
    assert "skipped: not_json" in everything.stderr

    shown = run(kafka, run_id, "show", alert("a").fingerprint[:8])
    assert shown.exit_code == 0
    assert "OWASP              LLM10:2025" in shown.stdout
    assert shown.stdout.count("firing   critical") == 2
    assert "1. How far did it reach" in shown.stdout
    states = json.loads(run(kafka, run_id, "show", "id of b", "--json").stdout)
    assert [state["status"] for state in states] == ["firing", "resolved"]

    missing = run(kafka, run_id, "show", "nothing")
    assert missing.exit_code == 1
    assert "no alert 'nothing'" in missing.stderr


def test_a_suppression_from_its_writing_to_its_end(kafka: KafkaCluster, run_id: str) -> None:
    asyncio.run(create_topics(kafka.connection, 2, 1, run_id))
    signed = ("--owner", "ana", "--reason", "a change")
    written = run(kafka, run_id, "suppress", "--match", "alertname=unjudged", "--until", "2h", *signed, "--json")
    assert written.exit_code == 0, written.output
    rule = json.loads(written.stdout)
    assert rule["labels"] == {"alertname": "unjudged"}
    assert run(kafka, run_id, "suppress", "--all", "--until", "1h", *signed, "--dry-run").exit_code == 0
    listed = json.loads(run(kafka, run_id, "suppressions", "--json").stdout)
    assert listed == [rule], "a dry run writes nothing"

    ended = run(kafka, run_id, "unsuppress", rule["suppression_id"], "--owner", "bo", "--reason", "done", "--json")
    assert json.loads(ended.stdout)["ends_at"] < rule["ends_at"]
    assert "ended by bo: done" in run(kafka, run_id, "suppressions", "--all").stdout
    rules = asyncio.run(read(kafka.connection, run_id))
    now_ms = round(datetime.now(UTC).timestamp() * 1000)
    assert rules.over({"alertname": "unjudged"}, now_ms + 3_600_000) == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--until", "2h"), "give --match, or --all"),
        (("--all", "--match", "a=b", "--until", "2h"), "give --match, or --all"),
        (("--match", "unjudged", "--until", "2h"), "is not LABEL=VALUE"),
        (("--all", "--until", "tomorrow"), "is no time"),
        (("--all", "--until", "2026-01-01T00:00:00"), "needs its zone"),
        (("--all", "--until", "2020-01-01T00:00:00Z"), "must be after the start"),
        (("--all", "--until", "91d"), "by 90 days at most"),
        (("--all", "--from", "3h", "--until", "2h"), "must be after the start"),
    ],
)
def test_a_suppression_that_makes_no_sense(arguments: tuple[str, ...], told: str) -> None:
    result = CliRunner().invoke(main, ["alerts", "suppress", *arguments, "--owner", "a", "--reason", "b"])
    assert result.exit_code == 2
    assert told in result.output
