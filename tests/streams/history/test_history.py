"""The core of the history lane on the real engine, over its wire protocol, while that misbehaves."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from schemas import topics
from schemas.clickhouse import tables
from schemas.codec import InvalidRecord, Record, dead_letter_headers, encode
from schemas.erasures import Erasure
from streams import history as module
from streams.embedded.clickhouse import ClickHouseServer
from streams.history import History
from streams.replay import FileRecord
from streams.store import Store
from tests.streams.history import planted
from tests.streams.history.planted import START_MS, log, record

REQUESTS = [planted.request(f"r{n}", f"p{n % 7}", n) for n in range(100)]


class Letters:
    """Takes what the history gives up."""

    def __init__(self) -> None:
        self.taken: list[tuple[Record, InvalidRecord]] = []

    async def __call__(self, record: Record, error: InvalidRecord) -> None:
        self.taken.append((record, error))


class Faults:
    """Tells the server how to misbehave."""

    def __init__(self, dsn: str) -> None:
        self._address = f"{dsn}/faults"
        self._session = aiohttp.ClientSession()

    async def set(self, kind: str = "", **fault: Any) -> None:
        async with self._session.post(self._address, json={"kind": kind, **fault}) as response:
            assert response.status == 200

    async def counts(self) -> dict[str, Any]:
        async with self._session.get(self._address) as response:
            counts: dict[str, Any] = await response.json()
            return counts

    async def reached(self, faulted: int) -> None:
        """Wait until the server has misbehaved that often since it was started."""
        while (await self.counts())["faulted"] < faulted:  # noqa: ASYNC110  another process counts
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        await self.set()
        await self._session.close()


@pytest.fixture
async def faults(server: ClickHouseServer) -> AsyncIterator[Faults]:
    control = Faults(server.dsn)
    yield control
    await control.close()


@pytest.fixture
def letters() -> Letters:
    return Letters()


@pytest.fixture
def history(store: Store, letters: Letters) -> History:
    return History(store, letters, first_wait=0.02)


async def count(store: Store, table: str, final: bool = True) -> int:
    answer = await store.query(f"SELECT count() FROM {table} {'FINAL' if final else ''}")
    return int(answer.rows[0][0])


async def request_ids(store: Store) -> list[str]:
    return [r for (r,) in (await store.query("SELECT request_id FROM requests FINAL ORDER BY log_offset")).rows]


async def test_every_topic_comes_to_its_tables(store: Store, history: History) -> None:
    bad = record(topics.EVENTS, b"{", 99)
    error = InvalidRecord("not_json", bad, "$", "truncated")
    letter = FileRecord(topics.DEADLETTERS.name, 0, START_MS, b"{", b"", dead_letter_headers(error, bad, "decode"))
    await history.insert([*planted.campaign(), bad, letter])
    counts = {table.name: await count(store, table.name) for table in tables.ALL}
    assert counts == {
        "requests": 6, "routes": 3, "outcomes": 5, "verdicts": 5, "reasons": 3, "findings": 1, "alerts": 3,
        "dead_letters": 1, "thresholds": 0, "threshold_links": 0, "audits": 3,
    }  # fmt: skip
    (row,) = (await store.query("SELECT * FROM routes FINAL WHERE request_id = 'q3'")).records()
    assert (row["selected_model"], row["escalated"], row["difficulty_score"]) == ("large", True, 0.2)
    assert row["event_time"] == planted.START.fromtimestamp((START_MS + 2_001) / 1000, row["event_time"].tzinfo)
    current = (await store.query("SELECT alert_id, status, sequence FROM alerts_current")).rows
    assert current == [("a1", "resolved", 3)]


async def test_reads_are_exact_after_redelivery(store: Store, history: History) -> None:
    """The same batch again, and overlapping batches cut otherwise."""
    records = log(topics.EVENTS, REQUESTS)
    verdicts = log(topics.VERDICTS, [planted.flagged(f"r{n}", f"p{n % 7}", n, window="w") for n in range(100)])
    for batch in (slice(0, 60), slice(0, 60), slice(40, 100), slice(10, 90)):
        await history.insert([*records[batch], *verdicts[batch]])
    assert await count(store, "requests", final=False) > 100  # the overlap is there, until it is merged away
    assert await request_ids(store) == [f"r{n}" for n in range(100)]
    assert await count(store, "verdicts") == await count(store, "reasons") == 100


async def test_minutes_count_what_was_delivered_twice_once(store: Store, history: History) -> None:
    verdicts = [planted.verdict(f"r{n}", f"p{n % 7}", n) for n in range(100)]
    for batch in (slice(0, 60), slice(0, 60), slice(40, 100)):
        await history.insert([*log(topics.EVENTS, REQUESTS)[batch], *log(topics.VERDICTS, verdicts)[batch]])
    for table, column in (("requests_by_minute", "requests"), ("verdicts_by_minute", "verdicts")):
        sql = f"SELECT uniqCombined64Merge({column}), uniqCombined64Merge(principals) FROM {table}"
        assert (await store.query(sql)).rows == [(100, 7)]


async def test_the_same_batch_is_the_same_block(store: Store, history: History) -> None:
    """A retry whose first try did arrive adds nothing, not even a duplicate to merge."""
    for _ in range(3):
        await history.insert(log(topics.EVENTS, REQUESTS))
    assert await count(store, "requests", final=False) == 100


async def test_a_batch_larger_than_the_clients_blocks_is_stored_whole(store: Store, history: History) -> None:
    """The engine took the second block of a token for a repeat, in tables that no view reads."""
    routes = [planted.route(f"r{n}", f"p{n % 7}", n) for n in range(12_000)]
    await history.insert(log(topics.EVENTS, routes))
    assert await count(store, "routes", final=False) == 12_000


async def test_of_two_copies_the_later_offset_stands(store: Store, history: History) -> None:
    """A gateway's retry: one event, two offsets. The answer does not depend on which was inserted last."""
    first, second = planted.request("r1", user_agent="first"), planted.request("r1", user_agent="second")
    await history.insert([record(topics.EVENTS, second, 8)])
    await history.insert([record(topics.EVENTS, first, 3)])
    assert (await store.query("SELECT user_agent, log_offset FROM requests FINAL")).rows == [("second", 8)]


@pytest.mark.parametrize("kind", ["refuse", "error", "cut"])
async def test_nothing_is_lost_or_doubled_while_the_server_fails(
    store: Store, history: History, faults: Faults, kind: str
) -> None:
    before = (await faults.counts())["faulted"]
    await faults.set(kind)
    inserting = asyncio.create_task(history.insert(log(topics.EVENTS, REQUESTS)))
    await faults.reached(before + 4)
    assert not inserting.done()
    await faults.set()
    await inserting
    assert await request_ids(store) == [f"r{n}" for n in range(100)]
    assert await count(store, "requests", final=False) == 100


async def test_a_server_that_stalls(
    server: ClickHouseServer, store: Store, letters: Letters, faults: Faults
) -> None:
    """The client gives up and tries again; what stalled is applied afterwards, and is dropped as known."""
    impatient = Store(server.dsn, database=store.database, timeout=0.3)
    before = (await faults.counts())["faulted"]
    await faults.set("stall")
    inserting = asyncio.create_task(
        History(impatient, letters, first_wait=0.02).insert(log(topics.EVENTS, REQUESTS))
    )
    await faults.reached(before + 2)
    await faults.set()
    await inserting
    await impatient.close()
    assert await count(store, "requests", final=False) == 100


async def test_a_server_that_is_not_there_yet(store: Store, letters: Letters) -> None:
    """Killed, it is waited for; it finds what it had acknowledged."""
    nobody = Store("http://127.0.0.1:9", database="d")
    waiting = asyncio.create_task(History(nobody, letters, first_wait=0.01).insert(log(topics.EVENTS, REQUESTS)))
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    assert not done
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert letters.taken == []


async def test_tables_that_are_not_made_yet_are_waited_for(empty: Store, letters: Letters, faults: Faults) -> None:
    from schemas.clickhouse import migrations
    from streams.migrations import migrate

    inserting = asyncio.create_task(History(empty, letters, first_wait=0.02).insert(log(topics.EVENTS, REQUESTS)))
    done, _ = await asyncio.wait([inserting], timeout=0.2)
    assert not done
    await migrate(empty, migrations.load())
    await inserting
    assert await count(empty, "requests") == 100
    assert letters.taken == []


async def test_a_row_that_is_refused_for_good_does_not_block(
    store: Store, history: History, letters: Letters
) -> None:
    """By the server: two of a hundred are found by halving, the others are stored."""
    await store.command("ALTER TABLE requests ADD CONSTRAINT good CHECK request_id NOT IN ('r13', 'r77')")
    records = log(topics.EVENTS, REQUESTS)
    await history.insert(records)
    assert await request_ids(store) == [f"r{n}" for n in range(100) if n not in (13, 77)]
    assert [taken.offset for taken, _ in letters.taken] == [13, 77]
    _, error = letters.taken[0]
    assert (error.reason, error.offset) == ("store_refused", 13)
    assert error.detail == "refused for requests: DatabaseError VIOLATED_CONSTRAINT 469"


async def test_a_value_that_the_client_cannot_write_does_not_block(
    store: Store, history: History, letters: Letters
) -> None:
    """A version beyond UInt32, in one verdict of ten."""
    verdicts = [planted.verdict(f"r{n}", catalogue_version=1 << 40 if n == 4 else 1) for n in range(10)]
    await history.insert(log(topics.VERDICTS, verdicts))
    assert await count(store, "verdicts") == 9
    assert [taken.offset for taken, _ in letters.taken] == [4]


async def test_a_table_that_refuses_everything_is_waited_for(
    store: Store, letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More refused rows than bad records explain: nothing is given up, and all of it is stored once it can be."""
    monkeypatch.setattr(module, "REFUSED_MAX", 10)
    await store.command("ALTER TABLE requests ADD CONSTRAINT broken CHECK request_id = ''")
    history = History(store, letters, first_wait=0.02)
    inserting = asyncio.create_task(history.insert(log(topics.EVENTS, REQUESTS)))
    done, _ = await asyncio.wait([inserting], timeout=1.0)
    assert not done
    assert letters.taken == []
    await store.command("ALTER TABLE requests DROP CONSTRAINT broken")
    await inserting
    assert await count(store, "requests") == 100


async def test_a_dead_letter_that_is_refused_makes_no_other(
    store: Store, history: History, letters: Letters
) -> None:
    await store.command("ALTER TABLE dead_letters ADD CONSTRAINT none CHECK size > 1")
    bad = record(topics.EVENTS, b"{", 99)
    error = InvalidRecord("not_json", bad, "$", "truncated")
    letter = FileRecord(topics.DEADLETTERS.name, 0, START_MS, b"{", b"", dead_letter_headers(error, bad, "decode"))
    await history.insert([letter])
    assert await count(store, "dead_letters") == 0
    assert letters.taken == []


async def test_letters_that_cannot_be_sent_are_tried_again(store: Store) -> None:
    tries: list[int] = []

    async def unreliable(record: Record, _error: InvalidRecord) -> None:
        tries.append(record.offset)
        if len(tries) < 3:
            raise ConnectionError

    await store.command("ALTER TABLE requests ADD CONSTRAINT good CHECK request_id != 'r13'")
    await History(store, unreliable, first_wait=0.01).insert(log(topics.EVENTS, REQUESTS))
    assert tries == [13, 13, 13]
    assert await count(store, "requests", final=False) == 99


def test_topics_are_told_by_their_name_without_the_suffix(letters: Letters) -> None:
    suffixed = [FileRecord(r.topic + ".run1", r.offset, r.timestamp, r.value) for r in log(topics.EVENTS, REQUESTS)]
    blocks, unreadable = History(Store("http://localhost"), letters, suffix=".run1").blocks(suffixed)
    assert [(block.table.name, len(block.records)) for block in blocks] == [("requests", 100)]
    assert unreadable == []


def test_an_erasure_that_cannot_be_read_keeps_none_of_the_others_from_being_kept(letters: Letters) -> None:
    made = History(Store("http://localhost"), letters)
    told = encode(Erasure(tenant_id="t1", principal_hash="p1", until=datetime(2026, 1, 1, tzinfo=UTC)))
    for offset, value in enumerate((b"{", b"", told)):
        made.take_erasure(FileRecord(topics.ERASURES.name, offset, START_MS, value))
    assert made.erasures.cover("t1", "p1", datetime(2025, 1, 1, tzinfo=UTC))


def test_a_row_that_cannot_be_made_takes_no_other_of_its_batch_along(letters: Letters) -> None:
    """Rows are made by the hundred, and an erasure asks each for its time: the batch was tried again for ever."""
    made = History(Store("http://localhost"), letters)
    made.erasures.add(Erasure(tenant_id="t1", principal_hash="p9", until=datetime(2026, 1, 1, tzinfo=UTC)))
    last = datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)  # rounded to milliseconds no calendar has it
    verdicts = [planted.verdict("r1"), planted.verdict("r2", time=last), planted.verdict("r3")]
    records = log(topics.VERDICTS, verdicts)
    (block,), refused = made.blocks(records)
    assert block.records == [records[0], records[2]]
    assert [(record, error.reason) for record, error in refused] == [(records[1], "store_refused")]

    refused = block.add([verdicts[0], object(), verdicts[2]], records)
    assert [record for record, _ in refused] == [records[1]]
    assert {len(column) for column in (*block.columns, block.records)} == {4}


def tokens(records: Sequence[Record], letters: Letters) -> list[str]:
    return [block.token for block in History(Store("http://localhost"), letters).blocks(records)[0]]


def test_tokens_name_the_batch(letters: Letters) -> None:
    records = log(topics.EVENTS, REQUESTS)
    assert tokens(records, letters) == tokens(list(records), letters)
    assert tokens(records[:60], letters) != tokens(records, letters)
    elsewhere = [FileRecord(r.topic, r.offset, r.timestamp, r.value, partition=1) for r in records]
    assert tokens(elsewhere, letters) != tokens(records, letters)
