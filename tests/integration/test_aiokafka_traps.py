"""What aiokafka and Kafka really do where streams/checkpoints.py and streams/partitions.py depend on it.

Each test states one behaviour, wanted or not. One that fails after an upgrade says which line of ours to look at.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, ProducerFenced

from streams.embedded.kafka import KafkaCluster

LIMIT = 2_000  # bytes a record, by the topic's own setting: the client does not know it
TOO_LARGE = b"x" * (2 * LIMIT)
Isolation = Literal["read_committed", "read_uncommitted"]
Send = Callable[[AIOKafkaProducer, TopicPartition, bytes], Awaitable["asyncio.Future[Any]"]]


@pytest.fixture(autouse=True)
async def _silence() -> None:
    """A fenced producer leaves futures with exceptions to nobody; asyncio would tell of each."""
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)


@pytest.fixture
async def log(kafka: KafkaCluster, run_id: str) -> TopicPartition:
    """A checkpoint log of this test's own: one partition."""
    admin = AIOKafkaAdminClient(**kafka.connection)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(f"log{run_id}", 1, 1, topic_configs={"max.message.bytes": str(LIMIT)})])
    finally:
        await admin.close()
    return TopicPartition(f"log{run_id}", 0)


def owner(kafka: KafkaCluster, log: TopicPartition, timeout_ms: int = 30_000) -> AIOKafkaProducer:
    """A producer with the transactional id of this log: starting a second one fences the first."""
    return AIOKafkaProducer(**kafka.connection, transactional_id=log.topic, transaction_timeout_ms=timeout_ms)


async def send_record(producer: AIOKafkaProducer, log: TopicPartition, value: bytes) -> "asyncio.Future[Any]":
    future: asyncio.Future[Any] = await producer.send(log.topic, value, partition=log.partition)
    return future


async def send_batch(producer: AIOKafkaProducer, log: TopicPartition, value: bytes) -> "asyncio.Future[Any]":
    batch = producer.create_batch()
    batch.append(key=None, value=value, timestamp=None)
    batch.close()
    future: asyncio.Future[Any] = await producer.send_batch(batch, log.topic, partition=log.partition)
    return future


both_ways = pytest.mark.parametrize("send", [send_record, send_batch])


async def each(sent: "list[asyncio.Future[Any]]", then: Callable[[], Awaitable[None]] | None = None) -> None:
    """Await every send and only then commit: the order that streams/checkpoints.py keeps."""
    for future in sent:
        await future
    if then:
        await then()


async def commit(producer: AIOKafkaProducer, log: TopicPartition, value: bytes) -> None:
    await producer.begin_transaction()
    await (await send_record(producer, log, value))
    await producer.commit_transaction()


async def end_of(kafka: KafkaCluster, log: TopicPartition, isolation: Isolation = "read_committed") -> int:
    async with AIOKafkaConsumer(**kafka.connection, isolation_level=isolation) as reader:
        return int((await reader.end_offsets([log]))[log])


async def take_over_and_read(kafka: KafkaCluster, log: TopicPartition) -> tuple[list[bytes], int]:
    """Committed values up to the log's end, read as streams/checkpoints.py reads, and the position reached.

    `commit_transaction` returns before its marker is in the log, so an end asked for at once may lie before what
    was just committed. A new owner is let in only after the marker: hence first the fence, then the end.
    """
    async with (
        owner(kafka, log),
        AIOKafkaConsumer(
            **kafka.connection,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
        ) as reader,
    ):
        reader.assign([log])
        end = (await reader.end_offsets([log]))[log]
        await reader.seek_to_beginning(log)
        values: list[bytes] = []
        async with asyncio.timeout(20):
            while await reader.position(log) < end:
                for records in (await reader.getmany(timeout_ms=100)).values():
                    values += [record.value for record in records]
        return values, await reader.position(log)


async def give_up(producer: AIOKafkaProducer) -> None:
    """Stop a producer that may refuse to, because it was fenced."""
    try:
        await asyncio.wait_for(producer.stop(), 5)
    except (Exception, asyncio.CancelledError):
        await producer.client.close()


# --- a send that failed


@both_ways
async def test_a_transaction_with_a_failed_send_commits_the_rest(
    kafka: KafkaCluster, log: TopicPartition, send: Send
) -> None:
    async with owner(kafka, log) as producer:
        await producer.begin_transaction()
        await (await send(producer, log, b"small"))
        failed = await send(producer, log, TOO_LARGE)
        await producer.commit_transaction()  # no error: half of the delta is committed
        assert isinstance(failed.exception(), MessageSizeTooLargeError)
    assert (await take_over_and_read(kafka, log))[0] == [b"small"]


@both_ways
async def test_awaiting_every_send_finds_the_failure_and_then_nothing_is_visible(
    kafka: KafkaCluster, log: TopicPartition, send: Send
) -> None:
    producer = owner(kafka, log)
    await producer.start()
    await producer.begin_transaction()
    sent = [await send(producer, log, b"small"), await send(producer, log, TOO_LARGE)]
    with pytest.raises(MessageSizeTooLargeError):
        await each(sent)
    await give_up(producer)  # the worker ends here, without a commit
    assert (await take_over_and_read(kafka, log))[0] == []
    async with owner(kafka, log) as restarted:
        await commit(restarted, log, b"again")
    assert (await take_over_and_read(kafka, log))[0] == [b"again"]


# --- a second owner


@both_ways
@pytest.mark.parametrize("fenced_when", ["idle", "begun", "sent", "acknowledged"])
async def test_a_new_owner_fences_the_former_in_every_phase(
    kafka: KafkaCluster, log: TopicPartition, send: Send, fenced_when: str
) -> None:
    former, new = owner(kafka, log), owner(kafka, log)
    await former.start()
    try:
        await commit(former, log, b"by the former")
        if fenced_when == "idle":
            await new.start()
        await former.begin_transaction()
        if fenced_when == "begun":
            await new.start()
        sent = await send(former, log, b"too late")
        if fenced_when == "acknowledged":
            await sent
        if fenced_when in ("sent", "acknowledged"):
            await new.start()

        with pytest.raises(ProducerFenced):
            await asyncio.wait_for(each([sent], then=former.commit_transaction), 20)
        # From now on not even the error is Kafka's own: catching KafkaError around a checkpoint is not enough.
        with pytest.raises(AssertionError) as after:
            await former.begin_transaction()
        assert not isinstance(after.value, KafkaError)

        await commit(new, log, b"by the new")
        assert (await take_over_and_read(kafka, log))[0] == [b"by the former", b"by the new"]
    finally:
        await give_up(former)
        await new.stop()


async def test_a_transaction_that_timed_out_looks_like_fencing(kafka: KafkaCluster, log: TopicPartition) -> None:
    frozen = owner(kafka, log, timeout_ms=1_000)
    await frozen.start()
    try:
        await frozen.begin_transaction()
        await (await send_record(frozen, log, b"of a frozen worker"))
        async with asyncio.timeout(30):
            while await end_of(kafka, log) < 2:  # noqa: ASYNC110  until the coordinator has aborted it
                await asyncio.sleep(0.1)
        with pytest.raises(ProducerFenced):
            await frozen.commit_transaction()
        assert (await take_over_and_read(kafka, log))[0] == []
    finally:
        await give_up(frozen)


# --- where a log ends


async def test_end_offsets_count_the_markers_of_transactions(kafka: KafkaCluster, log: TopicPartition) -> None:
    async with owner(kafka, log) as producer:
        for value in (b"1", b"2", b"3"):
            await commit(producer, log, value)
    # Three records and three commit markers. The position passes the last one: a loop up to the end does end.
    assert await take_over_and_read(kafka, log) == ([b"1", b"2", b"3"], 6)


async def test_the_record_before_the_end_may_be_one_that_no_reader_gets(
    kafka: KafkaCluster, log: TopicPartition
) -> None:
    async with owner(kafka, log) as producer:
        await commit(producer, log, b"1")
        await producer.begin_transaction()
        await (await send_record(producer, log, b"dropped"))
        await producer.abort_transaction()
    assert await take_over_and_read(kafka, log) == ([b"1"], 4)


async def test_an_open_transaction_hides_the_end_until_the_next_owner_starts(
    kafka: KafkaCluster, log: TopicPartition
) -> None:
    killed, new = owner(kafka, log), owner(kafka, log)
    await killed.start()
    try:
        await commit(killed, log, b"kept")
        await killed.begin_transaction()
        await (await send_record(killed, log, b"open"))
        assert await end_of(kafka, log) == 2
        assert await end_of(kafka, log, "read_uncommitted") == 3
        await new.start()
        assert await end_of(kafka, log) == 4
    finally:
        await give_up(killed)
        await new.stop()
    assert await take_over_and_read(kafka, log) == ([b"kept"], 4)


# --- whose offsets, whose partitions


async def test_offsets_in_a_transaction_fence_no_former_owner(kafka: KafkaCluster, log: TopicPartition) -> None:
    """They carry no generation: who was rebalanced away may still move the group. So nobody resumes from them."""
    async with (
        AIOKafkaConsumer(**kafka.connection, group_id=log.topic, enable_auto_commit=False) as consumer,
        AIOKafkaProducer(**kafka.connection, transactional_id=f"{log.topic}-stranger") as stranger,
    ):
        consumer.subscribe([log.topic])
        while not consumer.assignment():
            await consumer.getmany(timeout_ms=100)
        await stranger.begin_transaction()
        await stranger.send_offsets_to_transaction({log: 41}, log.topic)  # by one that never was a member
        await stranger.commit_transaction()
        async with asyncio.timeout(20):
            while await consumer.committed(log) != 41:  # noqa: ASYNC110  the marker comes after the commit's return
                await asyncio.sleep(0.05)


class _Listener(ConsumerRebalanceListener):
    """Fails when it is given partitions, and notes when they are taken."""

    def __init__(self) -> None:
        self.revoked: list[set[TopicPartition]] = []

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        raise RuntimeError("planted")

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self.revoked.append(set(revoked))


async def test_a_listener_that_raises_stops_nobody_and_stopping_revokes_nothing(
    kafka: KafkaCluster, log: TopicPartition
) -> None:
    """A load that fails must crash the lane itself, and what a stop has to save the lane saves itself."""
    listener = _Listener()
    consumer = AIOKafkaConsumer(**kafka.connection, group_id=log.topic, auto_offset_reset="earliest")
    consumer.subscribe([log.topic], listener=listener)
    await consumer.start()
    async with owner(kafka, log) as producer:
        await commit(producer, log, b"read all the same")
    async with asyncio.timeout(20):
        while not (batches := await consumer.getmany(timeout_ms=100)):
            pass
    assert [record.value for records in batches.values() for record in records] == [b"read all the same"]
    before = list(listener.revoked)
    await consumer.stop()
    assert listener.revoked == before


class _Slow(ConsumerRebalanceListener):
    """Does not come back from being given partitions until it is let go."""

    def __init__(self) -> None:
        self.given, self.let_go = asyncio.Event(), asyncio.Event()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self.given.set()
        await self.let_go.wait()

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        pass


async def test_who_is_still_being_given_partitions_sends_no_heartbeats_and_loses_them(
    kafka: KafkaCluster, log: TopicPartition
) -> None:
    """So a load, which takes seconds, is only started there. With heartbeats the group would wait for minutes."""
    listener = _Slow()
    first, second = (
        AIOKafkaConsumer(
            **kafka.connection, group_id=log.topic, session_timeout_ms=6_000, heartbeat_interval_ms=500
        )
        for _ in range(2)
    )
    async with first, second:
        first.subscribe([log.topic], listener=listener)
        async with asyncio.timeout(60):
            await listener.given.wait()
            second.subscribe([log.topic])
            while not second.assignment():
                await second.getmany(timeout_ms=100)
        assert second.assignment() == {log}
        listener.let_go.set()
