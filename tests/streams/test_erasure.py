"""`pointsman erase` on the real engine and on a real broker with a real worker."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from click.testing import CliRunner, Result

from loadtests.workers import Worker
from schemas.codec import encode
from schemas.erasures import Erasure
from schemas.topics import ALERTS, EVENTS, FINDINGS, named
from streams.cli import main
from streams.embedded.clickhouse import ClickHouseServer
from streams.embedded.kafka import KafkaCluster
from streams.erasure import count, remove, state_keys
from streams.history import History
from streams.replay import FileRecord
from streams.replay import Result as Replayed
from streams.store import Store
from streams.topics import create_topics
from tests.factories import at, request, route
from tests.streams.a_day import DAY, NOW_MS, Past, judged, lived


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    with ClickHouseServer(tmp_path_factory.mktemp("clickhouse")) as started:
        yield started


@pytest.fixture(scope="module")
def said() -> Replayed:
    result = judged(DAY)
    shared = next(alert for alert in result.alerts if alert.alertname == "unjudged" or alert.request_ids)
    # An alert about nobody in particular that lists a request of the one to be erased.
    shared = msgspec.structs.replace(
        shared, alert_id="shared", principal_hash="", labels={"alertname": "x"}, first_request_id="wallet-450",
        request_ids=["wallet-450", "quiet-1"], attributes={"principal_hash": ["wallet", "quiet"]},
    )  # fmt: skip
    result.alerts.append(shared)
    return result


def everywhere(past: Past, text: str) -> dict[str, int]:
    """Rows in which the text stands, whatever the column, by table; but for the tombstones."""
    found = {}
    tables = past.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase()"
        " AND engine LIKE '%MergeTree' AND name NOT IN ('erasures', 'migrations')"
    )
    for (table,) in tables:
        if "by_minute" in table:
            continue  # sketches, no names
        ((number,),) = past.query(f"SELECT countIf(position(toString(tuple(*)), '{text}') > 0) FROM {table}")
        if number:
            found[table] = number
    return found


def erase(past: Past, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["erase", "--principal", "wallet", *arguments], env=past.environment)


def test_a_principal_goes_from_the_history_and_does_not_come_back(server: ClickHouseServer, said: Replayed) -> None:
    past = Past(server)
    past.store(lived(said))
    past.run("replay", "--from", "-2h", "--source", "history")
    held, others = everywhere(past, "wallet"), everywhere(past, "quiet")
    assert held.keys() >= {"requests", "routes", "outcomes", "verdicts", "findings", "alerts", "replay_verdicts"}

    (dry,) = json.loads(erase(past, "--dry-run", "--json").output)
    assert everywhere(past, "wallet") == held
    assert dry["rows"]["requests"] == held["requests"]
    assert dry["mentions"] == {"alerts": 1}

    (done,) = json.loads(erase(past, "--json", "--reason", "asked for it").output)
    assert (done["rows"], done["mentions"]) == (dry["rows"], dry["mentions"])
    assert everywhere(past, "wallet") == {}
    assert everywhere(past, "quiet") == others
    assert past.query("SELECT request_ids, first_request_id, attributes FROM alerts WHERE alert_id = 'shared'") == [
        (["quiet-1"], "", {"principal_hash": ["quiet"]})
    ]
    ((reason,),) = past.query("SELECT reason FROM erasures WHERE principal_hash = 'wallet'")
    assert reason == "asked for it"

    past.run("replay", "--from", "-2h", "--source", "history")
    assert everywhere(past, "wallet") == {}
    again = erase(past, "--json")
    assert again.exit_code == 0
    assert json.loads(again.output)[0]["rows"] == {}


def test_rows_that_are_read_again_are_not_stored(server: ClickHouseServer, said: Replayed) -> None:
    past = Past(server)
    past.store([])
    until = datetime.now(UTC)
    tombstone = Erasure(tenant_id="t1", principal_hash="wallet", until=until)
    later = NOW_MS + 3_600_000
    log = lived(said)
    mark = FileRecord(
        EVENTS.name, len(log), NOW_MS, encode(tombstone), b"key", (("ce_type", b"pointsman.erase.v1"),)
    )
    after = FileRecord(EVENTS.name, len(log) + 1, later, encode(request("after", "wallet", later)), b"key")

    async def work() -> None:
        async def never(_record: Any, error: Exception) -> None:
            raise error

        async with Store(server.dsn, database=past.database) as store:
            history = History(store, never)
            await history.insert([mark])
            await history.insert([*log, after])

    asyncio.run(work())
    left = everywhere(past, "wallet")
    assert left == {"requests": 1, "alerts": 1}  # what came later, and an alert of others, until it is erased
    assert past.query("SELECT request_id FROM requests WHERE principal_hash = 'wallet'") == [("after",)]


def test_an_unknown_principal_needs_its_tenant(server: ClickHouseServer) -> None:
    past = Past(server)
    past.store([])
    result = CliRunner().invoke(main, ["erase", "--principal", "nobody"], env=past.environment)
    assert result.exit_code == 1
    assert "give its --tenant" in result.output
    assert CliRunner().invoke(
        main, ["erase", "--principal", "nobody", "--tenant", "t1"], env=past.environment
    ).exit_code == 0  # fmt: skip


def test_an_alert_that_began_after_what_it_is_about_was_erased_is_covered(server: ClickHouseServer) -> None:
    past = Past(server)
    past.store([])
    alert = judged(DAY).alerts[0]
    before, after = at(NOW_MS), at(NOW_MS + 60_000)
    late = msgspec.structs.replace(
        alert, alert_id="late", tenant_id="t1", principal_hash="wallet", starts_at=after, first_event_time=before
    )
    tombstone = Erasure(tenant_id="t1", principal_hash="wallet", until=at(NOW_MS + 30_000))

    async def work() -> tuple[dict[str, int], dict[str, int]]:
        async def never(_record: Any, error: Exception) -> None:
            raise error

        async with Store(server.dsn, database=past.database) as store:
            await History(store, never).insert([FileRecord(ALERTS.name, 0, NOW_MS, encode(late), b"key")])
            found = (await count(store, tombstone))[0]
            await remove(store, tombstone)
            again = History(store, never)
            again.erasures.add(tombstone)
            await again.insert([FileRecord(ALERTS.name, 1, NOW_MS, encode(late), b"key")])
            return found, (await count(store, tombstone))[0]

    assert asyncio.run(work()) == ({"alerts": 1}, {})


async def test_the_findings_tombstone_waits_for_the_detect_lane(
    server: ClickHouseServer, kafka: KafkaCluster, run_id: str
) -> None:
    past = Past(server)
    await asyncio.to_thread(past.store, [])
    past.environment |= {
        "POINTSMAN_KAFKA_BOOTSTRAP": kafka.bootstrap, "POINTSMAN_KAFKA_TOPIC_SUFFIX": run_id,
    }  # fmt: skip
    await create_topics(kafka.connection, 1, 1, run_id)
    events, findings = (TopicPartition(named(topic, run_id), 0) for topic in (EVENTS, FINDINGS))
    erasing = asyncio.create_task(asyncio.to_thread(erase, past, "--tenant", "t1", "--json"))
    async with AIOKafkaConsumer(
        **kafka.connection,
        group_id=f"pointsman-detect{run_id}",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    ) as lane:
        lane.assign([events, findings])
        first = await lane.getone()  # the lane has it and has not judged all before it
        async with AIOKafkaProducer(**kafka.connection) as producer:
            last = await producer.send_and_wait(findings.topic, b"what it still found")
        await lane.commit({events: first.offset + 1})
        while (await lane.getone()).offset == last.offset:
            pass
    async with AIOKafkaConsumer(
        **kafka.connection, group_id=f"pointsman-history{run_id}", enable_auto_commit=False
    ) as history:
        history.assign([events, findings])
        await history.commit({events: 1, findings: 2})
    (done,) = json.loads((await erasing).output)
    assert first.topic == events.topic
    assert last.offset == 0
    assert done["settled"]


def test_a_running_service_forgets_and_a_restart_does_not_remember(
    server: ClickHouseServer, kafka: KafkaCluster, run_id: str, tmp_path: Path
) -> None:
    past = Past(server)
    past.store([])
    past.environment |= {
        "POINTSMAN_KAFKA_BOOTSTRAP": kafka.bootstrap, "POINTSMAN_KAFKA_TOPIC_SUFFIX": run_id,
        "POINTSMAN_DETECT_CHECKPOINT_SECONDS": "0.5", "POINTSMAN_CLICKHOUSE_BATCH_SECONDS": "0.2",
    }  # fmt: skip
    asyncio.run(create_topics(kafka.connection, 3, 1, run_id))

    async def produce(first: int, *principals: str) -> None:
        async with AIOKafkaProducer(**kafka.connection) as producer:
            for number in range(first, first + 30):
                now = round(time.time() * 1000)
                for who in principals:
                    rid = f"{who}-{number}"
                    prompt = f"Please list the first {number} rivers of Norway."
                    for event in (request(rid, who, now, prompt_text=prompt), route(rid, who, now)):
                        await producer.send(named(EVENTS, run_id), encode(event), key=who.encode())

    def held(principal: str) -> int:
        return asyncio.run(state_keys(kafka.connection, run_id, principal))

    def stored(principal: str) -> int:
        sql = f"SELECT uniqExact(verdict_id) FROM verdicts WHERE principal_hash = '{principal}'"
        ((number,),) = past.query(sql)
        return int(number)

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, "it did not come about"
            time.sleep(0.3)

    roles = ("detect", "fleet", "history")
    settings = {**past.environment, "POINTSMAN_KAFKA_SESSION_SECONDS": "6"}
    with Worker("one", tmp_path, settings, roles) as worker:
        asyncio.run(produce(0, "wallet", "quiet"))
        wait(lambda: stored("wallet") == stored("quiet") == 30 and held("wallet") > 30)
        (done,) = json.loads(erase(past, "--json").output)
        assert done["settled"]
        assert done["state_keys"] > 30
        assert done["rows"]["verdicts"] == 30
        wait(lambda: held("wallet") == 0)
        assert held("quiet") > 0
        worker.kill()
    # Again with a history group that begins at the start of the log: it reads all of the old records.
    fresh = {**settings, "POINTSMAN_CLICKHOUSE_GROUP": "another"}
    with Worker("two", tmp_path, fresh, roles):
        asyncio.run(produce(100, "quiet"))
        wait(lambda: stored("quiet") == 60)
        assert held("wallet") == 0
        assert everywhere(past, "wallet") == {}
