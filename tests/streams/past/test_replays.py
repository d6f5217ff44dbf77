"""Windows of Kafka's and the history's judged again, by the commands, on a real broker and the real engine."""

import asyncio
import secrets
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from click.testing import CliRunner

from schemas.codec import encode
from schemas.erasures import Erasure
from schemas.thresholds import ThresholdUpdate, scope_of
from schemas.topics import EVENTS, THRESHOLDS, named
from streams.cli import main
from streams.embedded.clickhouse import ClickHouseServer
from streams.embedded.kafka import KafkaCluster
from streams.past.diff import LATENCY_S, changes
from streams.past.results import Fired
from streams.replay import FileRecord, Result
from streams.topics import create_topics
from tests.streams.a_day import DAY, MINUTE_MS, NOW_MS, Past, judged, lived
from tests.streams.gateways.test_thresholds import FLAG, OWN, chain


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    with ClickHouseServer(tmp_path_factory.mktemp("clickhouse")) as started:
        yield started


@pytest.fixture
def past(server: ClickHouseServer) -> Past:
    made = Past(server)
    made.store([])
    return made


def window(begin_ms: int = NOW_MS - 60 * MINUTE_MS, end_ms: int = NOW_MS - 20 * MINUTE_MS) -> list[str]:
    begin, end = (datetime.fromtimestamp(time / 1000, UTC).isoformat() for time in (begin_ms, end_ms))
    return ["--from", begin, "--to", end]


def thresholds(folder: Path, **values: float) -> Path:
    path = folder / f"{secrets.token_hex(4)}.yml"
    path.write_text("".join(f"{name.replace('__', '.')}: {value}\n" for name, value in values.items()))
    return path


def names(difference: Mapping[str, Any], what: str) -> list[str]:
    return sorted(change["alertname"] for change in difference["changes"] if change["what"] == what)


@pytest.fixture(scope="module")
def said() -> Result:
    result = judged(DAY)
    assert {alert.alertname for alert in result.alerts} >= {"known_trigger", "denial_of_wallet"}
    return result


def test_history_gives_what_was_said_and_a_changed_threshold_is_tried_on_it(
    past: Past, said: Result, tmp_path: Path
) -> None:
    past.store(lived(said))
    replayed = ("replay", *window(), "--source", "history")
    (run,) = past.run(*replayed)
    live = past.query(
        "SELECT verdict_id, decision, arraySort(flagged_by) FROM verdicts FINAL"
        f" WHERE time >= '{run['begins'][:19]}' AND time < '{run['ends'][:19]}' ORDER BY ALL"
    )
    again = past.query(
        f"SELECT verdict_id, decision, arraySort(flagged_by) FROM replay_verdicts FINAL"
        f" WHERE run_id = '{run['run_id']}' ORDER BY ALL"
    )
    assert again == live  # spend was judged anew, the text weighed by what was recorded
    assert run["verdicts"] == len(live) > 150

    rows = past.rows(run)
    (second,) = past.run(*replayed)
    assert (second["run_id"], past.rows(second)) == (run["run_id"], rows)

    blind = thresholds(tmp_path, triggers__bits=500.0, triggers__cosine=1.5, spend__tier_odds=200.0)
    (loose,) = past.run(*replayed, "--thresholds", str(blind))
    assert loose["run_id"] != run["run_id"]
    difference = past.run("diff", run["run_id"], loose["run_id"])
    assert "known_trigger" in names(difference, "lost")
    assert names(difference, "new") == []
    assert difference["pins"]["thresholds.triggers.bits"] == ["22.0", "500.0"]
    assert difference["unlike"] == []
    by_detector = {detector: (newly, no_longer) for detector, newly, no_longer in difference["verdicts"]}
    assert by_detector["triggers"] == (0, 1)
    assert sum(by_detector[""]) > 0

    reverse = past.run("diff", loose["run_id"], run["run_id"])
    assert names(reverse, "new") == names(difference, "lost")
    text = CliRunner().invoke(main, ["diff", run["run_id"][:6], loose["run_id"][:6]], env=past.environment).output
    assert "lost" in text
    assert "thresholds.triggers.bits: 22.0 to 500.0" in text
    assert past.run("diff", "live", run["run_id"])["a"] == "live"
    assert [found["run_id"] for found in past.run("replay", "--list")] == [loose["run_id"], run["run_id"]]


def test_what_fired_live_a_moment_later_is_no_difference() -> None:
    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    live = [Fired("a", "known_trigger", "critical", {}, moment + timedelta(seconds=LATENCY_S), 1)]
    replayed = [Fired("a", "known_trigger", "critical", {}, moment, 1)]
    assert changes(live, replayed, LATENCY_S) == ([], 1)
    ((change,), same) = changes(live, replayed)
    assert (change.what, change.seconds, same) == ("earlier", -LATENCY_S, 0)
    late = [replayed[0]._replace(fired_at=moment - timedelta(seconds=1))]
    assert [change.what for change in changes(live, late, LATENCY_S)[0]] == ["earlier"]


def test_a_lower_threshold_finds_what_its_recorded_score_shows(past: Past, said: Result, tmp_path: Path) -> None:
    past.store(lived(said))
    (run,) = past.run("replay", *window(), "--source", "history")
    (tight,) = past.run(
        "replay", *window(), "--source", "history", "--thresholds", str(thresholds(tmp_path, novelty__flag=0.0))
    )
    assert tight["flagged"] > run["flagged"]
    by_novelty = "SELECT count() FROM replay_verdicts FINAL WHERE has(flagged_by, 'novelty') AND run_id = "
    assert past.query(f"{by_novelty} '{tight['run_id']}'") == [(tight["verdicts"],)]
    flips = {flip[0]: flip[1:] for flip in past.run("diff", run["run_id"], tight["run_id"])["verdicts"]}
    assert flips["novelty"] == [tight["verdicts"] - past.query(f"{by_novelty} '{run['run_id']}'")[0][0], 0]


def test_a_tenant_is_judged_again_by_its_own_threshold(past: Past, said: Result) -> None:
    past.store(lived(said))
    replayed = ("replay", *window(), "--source", "history")
    (fleet,) = past.run(*replayed)
    own = {"scope": OWN, "new_value": 1e-9}
    links = chain(
        own, {"scope": scope_of(FLAG, "t2"), "new_value": 0.5}, {**own, "mode": "proposed", "new_value": 0.9}
    )
    past.store([FileRecord(THRESHOLDS.name, n, NOW_MS, encode(link)) for n, link in enumerate(links)])
    (run,) = past.run(*replayed)
    by_novelty = "SELECT countIf(has(flagged_by, 'novelty')), count() FROM replay_verdicts FINAL WHERE run_id = "
    ((before, _),) = past.query(f"{by_novelty} '{fleet['run_id']}'")
    ((flagged, of),) = past.query(f"{by_novelty} '{run['run_id']}'")
    assert before < of / 2 < flagged
    moved = past.run("diff", fleet["run_id"], run["run_id"])
    assert moved["pins"][f"thresholds.{FLAG} t1"] == ["", "1e-09"]
    assert moved["unlike"] == []


def test_what_is_wrong_is_said(past: Past, tmp_path: Path) -> None:
    history = ("replay", *window(), "--source", "history")
    assert "no such threshold: novelty.typo" in past.fails(
        *history, "--thresholds", str(thresholds(tmp_path, novelty__typo=1.0))
    )
    catalogue = tmp_path / "catalogue.jsonl"
    catalogue.write_text("")
    assert "Kafka's events only" in past.fails(*history, "--catalogue", str(catalogue))
    assert "no brokers" in past.fails("replay", *window())
    assert "no run 'abc'" in past.fails("diff", "abc", "live")
    assert "one of the two must be a replay" in past.fails("diff", "live", "live")
    assert "'1h' is no time: `now`" in past.fails("replay", "--from", "1h")
    assert "a time needs its zone" in past.fails("replay", "--from", "2026-01-01T00:00:00")


def test_erased_principals_stay_out(past: Past, said: Result) -> None:
    past.store(lived(said))
    past.erase(Erasure(tenant_id="t1", principal_hash="wallet", until=datetime.now(UTC) + timedelta(hours=1)))
    (run,) = past.run("replay", *window(), "--source", "history")
    assert run["left_out"] == sum(event.principal_hash == "wallet" for event in DAY[: _until(NOW_MS - 20 * 60_000)])
    assert past.query("SELECT count() FROM replay_verdicts WHERE principal_hash = 'wallet'") == [(0,)]


def _until(time_ms: int) -> int:
    return sum(event.event_time.timestamp() * 1000 < time_ms for event in DAY)


class Broker:
    """The topics of one run, filled with the day."""

    def __init__(self, kafka: KafkaCluster, run_id: str) -> None:
        self.kafka, self.run_id = kafka, run_id

    async def fill(self) -> None:
        await create_topics(self.kafka.connection, 3, 1, self.run_id)
        async with AIOKafkaProducer(**self.kafka.connection) as producer:
            for event in DAY:
                await producer.send(named(EVENTS, self.run_id), encode(event), key=event.principal_hash.encode())
            await producer.send(named(EVENTS, self.run_id), b"\xffrubbish", key=b"quiet")

    async def claim(self, link: ThresholdUpdate) -> None:
        """Write a link into the thresholds' topic, whoever signed it."""
        async with AIOKafkaProducer(**self.kafka.connection) as producer:
            await producer.send_and_wait(named(THRESHOLDS, self.run_id), encode(link), key=b"k")

    async def ends(self) -> dict[TopicPartition, int]:
        consumer = AIOKafkaConsumer(**self.kafka.connection)
        await consumer.start()
        try:
            ours = sorted(topic for topic in await consumer.topics() if topic.endswith(self.run_id))
            at = [TopicPartition(t, n) for t in ours for n in consumer.partitions_for_topic(t) or ()]
            ends: dict[TopicPartition, int] = await consumer.end_offsets(at)
            return ends
        finally:
            await consumer.stop()

    async def groups(self) -> list[Any]:
        admin = AIOKafkaAdminClient(**self.kafka.connection)
        await admin.start()
        try:
            return sorted(group for group, *_ in await admin.list_consumer_groups())
        finally:
            await admin.close()


def test_kafka_is_judged_in_full_and_nothing_of_it_is_touched(
    past: Past, kafka: KafkaCluster, run_id: str, tmp_path: Path
) -> None:
    broker = Broker(kafka, run_id)
    begin = datetime.now(UTC) - timedelta(minutes=1)
    asyncio.run(broker.fill())
    end = datetime.now(UTC) + timedelta(minutes=1)
    past.environment |= {
        "POINTSMAN_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "POINTSMAN_KAFKA_TOPIC_SUFFIX": run_id,
    }
    before = asyncio.run(broker.ends()), asyncio.run(broker.groups())
    replayed = ("replay", "--from", begin.isoformat(), "--to", end.isoformat())
    (run,) = past.run(*replayed)
    assert run["verdicts"] == len(DAY) / 3
    assert run["events"] == len(DAY) + 1
    assert run["pins"]["catalogue_sha256"]
    flagged = past.query(
        "SELECT request_id FROM replay_verdicts WHERE has(flagged_by, 'triggers') ORDER BY request_id"
    )
    assert flagged == [("gadget-20",), ("gadget-50",)]
    assert past.query("SELECT alertname FROM replay_alerts WHERE alertname = 'known_trigger'") == [
        ("known_trigger",)
    ]

    rows = past.rows(run)
    (second,) = past.run(*replayed)
    assert (second["run_id"], past.rows(second)) == (run["run_id"], rows)

    blind = {"parameter": "triggers.bits", "new_value": 500.0}
    asyncio.run(broker.claim(chain(blind, key=b"a key of somebody else")[0]))
    before = asyncio.run(broker.ends()), before[1]
    past.environment |= {"POINTSMAN_FEEDBACK_KEY": "a key that only tests know"}
    (unmoved,) = past.run(*replayed)
    assert unmoved["pins"] == run["pins"]

    asyncio.run(broker.claim(chain({"scope": OWN, "new_value": 1e-9})[0]))
    before = asyncio.run(broker.ends()), before[1]
    (own,) = past.run(*replayed, "--thresholds", str(thresholds(tmp_path, triggers__share=0.6)))
    assert own["pins"]["thresholds"] == {**run["pins"]["thresholds"], f"{FLAG} t1": 1e-9, "triggers.share": 0.6}
    assert past.query("SELECT count() FROM replay_verdicts FINAL WHERE has(flagged_by, 'novelty')"
                      f" AND run_id = '{own['run_id']}'") == [(own["verdicts"],)]  # fmt: skip

    other = tmp_path / "catalogue.jsonl"
    other.write_text("")
    (run,) = past.run(*replayed)
    (without,) = past.run(*replayed, "--catalogue", str(other))
    difference = past.run("diff", run["run_id"], without["run_id"])
    assert "known_trigger" in names(difference, "lost")
    assert {"catalogue_sha256", "catalogue_version"} == set(difference["pins"])

    past.erase(Erasure(tenant_id="t1", principal_hash="gadget", until=end))
    (erased,) = past.run(*replayed)
    assert erased["left_out"] == 6
    assert past.query("SELECT count() FROM replay_verdicts FINAL WHERE principal_hash = 'gadget'"
                      f" AND run_id = '{erased['run_id']}'") == [(0,)]  # fmt: skip
    assert (asyncio.run(broker.ends()), asyncio.run(broker.groups())) == before
