"""Judges that answer audit tickets by themselves: a service behind HTTP, or a classifier in this process.

They see the ticket and no text: whoever judges looks the request up by its id, where prompts and answers are kept.
All judges share one consumer group, so that each ticket is answered once.
"""

import asyncio
import importlib
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import aiohttp
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from msgspec import Meta

from schemas.audits import AuditLabel, AuditTicket
from schemas.codec import InvalidRecord, Record, decode, encode, stable_id
from schemas.events import Share
from schemas.topics import AUDITS, TICKETS, named
from streams.kafka import connection, read_assigned, read_to_end
from streams.settings import Kafka

log = logging.getLogger(__name__)

GROUP = "pointsman-judges"
TIMEOUT_SECONDS = 60.0
NONSENSE_TRIES = 3  # answers that cannot be read, before the next ticket is asked about
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0

Answerer = Callable[[AuditTicket], Awaitable["Answer"]]


class Answer(msgspec.Struct, kw_only=True):
    """What a judge says of a ticket; other fields of its JSON are ignored."""

    label: Literal["safe", "unsafe", "unknown"]
    confidence: Share | None = None
    reason: Annotated[str, Meta(max_length=1024)] = ""


class HttpJudge:
    """Posts `{"ticket": {...}}` and takes the answer's JSON as an `Answer`."""

    def __init__(self, url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._url = url
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)

    async def __call__(self, ticket: AuditTicket) -> Answer:
        """Ask.

        Raises:
            aiohttp.ClientError, TimeoutError: no answer.
            msgspec.MsgspecError, UnicodeDecodeError, RecursionError: none that can be read.
        """
        body = msgspec.json.encode({"ticket": ticket})
        async with (
            aiohttp.ClientSession(timeout=self._timeout) as session,
            session.post(self._url, data=body, headers={"content-type": "application/json"}) as response,
        ):
            response.raise_for_status()
            return msgspec.json.decode(await response.read(), type=Answer)


class LocalJudge:
    """Calls a function with the ticket as a mapping; it returns a label, or a mapping as `Answer`."""

    def __init__(self, function: Callable[[dict[str, Any]], Any]) -> None:
        self._function = function

    @classmethod
    def named(cls, name: str) -> "LocalJudge":
        """The function that MODULE:NAME names.

        Raises:
            ImportError, AttributeError: there is none.
        """
        module, _, attribute = name.partition(":")
        return cls(getattr(importlib.import_module(module), attribute))

    async def __call__(self, ticket: AuditTicket) -> Answer:
        """Ask, in a thread: a classifier takes its time."""
        said = await asyncio.to_thread(self._function, msgspec.to_builtins(ticket))
        return msgspec.convert({"label": said} if isinstance(said, str) else said, Answer)


def label_of(ticket: AuditTicket, answer: Answer, judge: str) -> AuditLabel:
    """The label to publish. Its id is made from ticket and judge: sent twice, it is one."""
    return AuditLabel(
        label_id=stable_id("label", ticket.ticket_id, judge),
        ticket=ticket,
        judge=judge,
        label=answer.label,
        confidence=answer.confidence,
        labelled_at=datetime.now(UTC),
        reason=answer.reason,
    )


async def publish(producer: AIOKafkaProducer, label: AuditLabel, suffix: str) -> None:
    """Publish a label; returns when it is stored."""
    await producer.send_and_wait(named(AUDITS, suffix), encode(label), key=label.ticket.ticket_id.encode())


async def open_tickets(kafka: Kafka) -> list[AuditTicket]:
    """Tickets that have not expired and that nobody has answered, oldest first."""
    suffix, now = kafka.topic_suffix, datetime.now(UTC)
    tickets: dict[str, AuditTicket] = {}
    async for record in read_to_end(connection(kafka), named(TICKETS, suffix)):
        ticket = _ticket(record)
        if ticket is not None and ticket.expires_at > now:
            tickets[ticket.ticket_id] = ticket
    async for record in read_to_end(connection(kafka), named(AUDITS, suffix)):
        try:
            tickets.pop(decode(AuditLabel, record).ticket.ticket_id, None)
        except InvalidRecord:
            continue  # the feedback lane makes a dead letter of it
    return sorted(tickets.values(), key=lambda ticket: (ticket.issued_at, ticket.ticket_id))


def _ticket(record: Record) -> AuditTicket | None:
    try:
        return decode(AuditTicket, record)
    except InvalidRecord as error:
        log.error("not a ticket: %s", error)
        return None


async def judge_all(
    kafka: Kafka, ask: Answerer, judge: str, once: bool = False, first_wait: float = FIRST_WAIT_SECONDS
) -> int:
    """Answer tickets as they come, each until it is answered or has expired; how many were, with `once` at the end.

    A ticket is committed when its label is stored: a judge that is killed is asked again, and says the same id.
    """
    suffix = kafka.topic_suffix
    consumer = AIOKafkaConsumer(
        named(TICKETS, suffix), **connection(kafka), group_id=GROUP + suffix, enable_auto_commit=False,
        auto_offset_reset="earliest", isolation_level="read_committed",
        max_poll_interval_ms=3_600_000,
    )  # fmt: skip
    answered = 0
    async with consumer, AIOKafkaProducer(**connection(kafka), enable_idempotence=True) as producer:
        while True:
            for at, records in (await read_assigned(consumer, 500, 10)).items():
                for record in records:
                    ticket = _ticket(record)
                    label = await _answered(ticket, ask, judge, first_wait) if ticket else None
                    if label is not None:
                        await publish(producer, label, suffix)
                        answered += 1
                    await consumer.commit({at: record.offset + 1})
            if once and await _at_end(consumer):
                return answered


async def _answered(ticket: AuditTicket, ask: Answerer, judge: str, wait: float) -> AuditLabel | None:
    """The label; None for a ticket that expired meanwhile, or whose answers cannot be read: left to people."""
    tries = NONSENSE_TRIES
    while tries and ticket.expires_at > datetime.now(UTC):
        try:
            return label_of(ticket, await ask(ticket), judge)
        except Exception as error:  # of a classifier anything; of an answer that is no UTF-8, no msgspec error
            tries -= not isinstance(error, aiohttp.ClientError | TimeoutError)
            log.warning("no answer to ticket %s: %s", ticket.ticket_id, type(error).__name__)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)
    return None


async def _at_end(consumer: AIOKafkaConsumer) -> bool:
    places: list[TopicPartition] = list(consumer.assignment())
    ends = await consumer.end_offsets(places)
    return bool(places) and all([await consumer.position(at) >= ends[at] for at in places])
