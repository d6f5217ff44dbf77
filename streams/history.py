"""Records into the history: rows, blocks and inserts that are repeated until ClickHouse has them.

`History.insert` returns only when every row is stored or, refused for good, handed to `refuse`. Until then the
caller must not commit. Nothing is doubled by what is repeated: a block inserted again has the same token, and a
row read again replaces itself.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from typing import Any, Self

from clickhouse_connect.driver.exceptions import DatabaseError, DataError

from schemas.clickhouse.rows import subjects
from schemas.clickhouse.tables import BEGUN, Table
from schemas.codec import InvalidRecord, Record, decode, erasure_in
from schemas.erasures import Erasure, Erasures
from schemas.topics import DEADLETTERS
from streams import metrics
from streams.store import Store

log = logging.getLogger(__name__)

Refuse = Callable[[Record, InvalidRecord], Awaitable[None]]
Refusals = list[tuple[Record, InvalidRecord]]

CHUNK = 256  # records that are made into columns at once: few enough to be in the processor's cache still

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
# Beyond it not the rows are at fault but the table or this release: wait for people, and lose nothing.
REFUSED_MAX = 100
# What ClickHouse says of values (by code), as opposed to its own state; the latter passes.
_VALUE_CODES = frozenset({
    6,  # CANNOT_PARSE_TEXT
    27,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
    53,  # TYPE_MISMATCH
    69,  # ARGUMENT_OUT_OF_BOUND
    70,  # CANNOT_CONVERT_TYPE
    117,  # INCORRECT_DATA
    128,  # TOO_LARGE_ARRAY_SIZE
    131,  # TOO_LARGE_STRING_SIZE
    321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    469,  # VIOLATED_CONSTRAINT
})  # fmt: skip
# What the client raises when it cannot write a value in its column's type.
_VALUE_ERRORS = (DataError, ValueError, TypeError, OverflowError)


class TooManyRefused(RuntimeError):
    """More rows of one block are refused than bad records explain."""


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one table as columns in its order, each row with the record that it came from."""

    table: Table
    token: str
    columns: list[list[Any]]
    records: list[Record]

    def add(self, subjects: Sequence[Any], records: Sequence[Record]) -> Refusals:
        """Add the rows of `subjects`; those that cannot be made."""
        try:
            made = self.table.read(subjects, records)
        except Exception as error:
            if len(records) == 1:
                return [(records[0], _refusal(records[0], f"makes no row: {type(error).__name__}"))]
            alone = zip(subjects, records, strict=True)
            return [each for subject, record in alone for each in self.add([subject], [record])]
        for column, values in zip(self.columns, made, strict=True):
            column += values
        self.records.extend(records)
        return []

    def halves(self) -> Iterator[Self]:
        """Two smaller blocks with tokens of their own: the same ones whenever this block is halved."""
        middle = len(self.records) // 2
        for name, part in (("l", slice(None, middle)), ("r", slice(middle, None))):
            columns = [column[part] for column in self.columns]
            yield type(self)(self.table, f"{self.token}.{name}", columns, self.records[part])


class History:
    """The core of the history lane, without Kafka."""

    def __init__(
        self, store: Store, refuse: Refuse, suffix: str = "", first_wait: float = FIRST_WAIT_SECONDS
    ) -> None:
        """`refuse` takes each record whose row cannot be stored; `suffix`: of every topic's name."""
        self.erasures = Erasures()  # more come with the events
        self._store = store
        self._refuse = refuse
        self._suffix = suffix
        self._first_wait = first_wait

    def take_erasure(self, record: Record) -> None:
        """Take a record of the erasures' topic; one that cannot be read is logged and left out."""
        try:
            self.erasures.add(decode(Erasure, record))
        except InvalidRecord as error:
            log.error("erasure left out: %s", error)

    async def insert(self, records: Sequence[Record]) -> None:
        """Store all rows of `records`, however long that takes. Raises nothing but CancelledError."""
        # Work for every record: not on the loop, which other lanes share.
        blocks, unreadable = await asyncio.to_thread(self.blocks, records)
        async with asyncio.TaskGroup() as tasks:
            for block in blocks:
                tasks.create_task(self._until_done(block.table.name, partial(self._store_block, block)))
            for record, error in unreadable:
                tasks.create_task(self._until_done("dead_letters", partial(self._give_up, record, error)))

    def blocks(self, records: Sequence[Record]) -> tuple[list[Block], Refusals]:
        """One block a table, and the records that should have made a row and cannot.

        A record that the codec refuses makes none: the lane that judges it has written its dead letter.
        """
        token = _token(records)
        blocks: dict[str, Block] = {}
        unreadable: Refusals = []
        results: Counter[tuple[str, str]] = Counter()
        for at in range(0, len(records), CHUNK):
            found = self._subjects(records[at : at + CHUNK], unreadable, results)
            for table, (about, places) in found.items():
                block = blocks.get(table.name)
                if block is None:
                    block = Block(table, f"{table.name}:{token}", [[] for _ in table.columns], [])
                    blocks[table.name] = block
                unreadable += block.add(about, places)
        for (topic, result), count in results.items():
            metrics.EVENTS_CONSUMED.labels("history", topic, result).inc(count)
        return [block for block in blocks.values() if block.records], unreadable

    def _subjects(
        self, records: Sequence[Record], unreadable: Refusals, results: Counter[tuple[str, str]]
    ) -> dict[Table, tuple[list[Any], list[Record]]]:
        """What the tables' rows are about, with the records; what cannot be read, and counts, go to the others."""
        found: dict[Table, tuple[list[Any], list[Record]]] = {}
        for record in records:
            topic = record.topic.removesuffix(self._suffix)
            try:
                if (erasure := erasure_in(record)) is not None:
                    self.erasures.add(erasure)
                    continue
                made = subjects(topic, record)
                if self.erasures:
                    made = [each for each in made if not _is_erased(*each, record, self.erasures)]
            except InvalidRecord:
                results[topic, "dead_letter"] += 1
                continue
            except Exception as error:
                unreadable.append((record, _refusal(record, f"makes no row: {type(error).__name__}")))
                continue
            for table, subject in made:
                held = found.get(table)
                if held is None:
                    held = found[table] = [], []
                held[0].append(subject)
                held[1].append(record)
            results[topic, "ok"] += 1
        return found

    async def _until_done(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        longest = self._first_wait
        while True:
            try:
                return await work()
            except Exception as error:
                metrics.CLICKHOUSE_ERRORS.labels(name).inc()
                wait = random.uniform(longest / 2, longest)
                # The class and code only: a message may quote a row.
                log.warning("history of %s waits %.1f s: %s", name, wait, _named(error))
                await asyncio.sleep(wait)
                longest = min(2 * longest, LONGEST_WAIT_SECONDS)

    async def _store_block(self, block: Block) -> None:
        stored = len(block.records)
        # A second look: the table may have been mended while the rows at fault were searched for.
        for single, _ in await self._insert(block):
            for _, error in await self._insert(single):
                stored -= 1
                detail = f"refused for {block.table.name}: {_named(error)}"
                await self._give_up(single.records[0], _refusal(single.records[0], detail))
        metrics.CLICKHOUSE_ROWS.labels(block.table.name).inc(stored)

    async def _insert(self, block: Block) -> list[tuple[Block, Exception]]:
        """Insert all but the rows that are at fault themselves, found by halving; return each as a block."""
        try:
            with metrics.CLICKHOUSE_SECONDS.labels(block.table.name).time():
                await self._store.insert(block.table, block.columns, block.token)
            return []
        except (DatabaseError, *_VALUE_ERRORS) as error:
            if not _blames_a_value(error):
                raise
            if len(block.records) == 1:
                return [(block, error)]
        refused = []
        for half in block.halves():
            refused += await self._insert(half)
            if len(refused) > REFUSED_MAX:
                raise TooManyRefused(block.table.name)
        return refused

    async def _give_up(self, record: Record, error: InvalidRecord) -> None:
        log.error("history gives up a record: %s", error)
        if record.topic != DEADLETTERS.name + self._suffix:  # a letter about a letter would go round for ever
            await self._refuse(record, error)


def _is_erased(table: Table, subject: Any, record: Record, erasures: Erasures) -> bool:
    begun = BEGUN.get(table.name, "time")
    if not {"tenant_id", "principal_hash", begun} <= set(table.columns):
        return False
    tenant, principal, time_ms = (
        table.cell(name, subject, record) for name in ("tenant_id", "principal_hash", begun)
    )
    # An alert can begin after what it is about was erased.
    if "has_first_event_time" in table.columns and table.cell("has_first_event_time", subject, record):
        time_ms = min(time_ms, table.cell("first_event_time", subject, record))
    return erasures.cover(tenant, principal, datetime.fromtimestamp(time_ms / 1000, UTC))


def _token(records: Sequence[Record]) -> str:
    """The same for the same ranges of offsets, which hold the same rows."""
    ranges: dict[tuple[str, int], tuple[int, int]] = {}
    for record in records:
        at = (record.topic, record.partition)
        first, last = ranges.get(at, (record.offset, record.offset))
        ranges[at] = (min(first, record.offset), max(last, record.offset))
    text = ",".join(f"{topic}:{number}:{low}-{high}" for (topic, number), (low, high) in sorted(ranges.items()))
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _refusal(record: Record, detail: str) -> InvalidRecord:
    return InvalidRecord("store_refused", record, detail=detail)


def _blames_a_value(error: Exception) -> bool:
    if isinstance(error, _VALUE_ERRORS):
        return True
    return isinstance(error, DatabaseError) and error.code in _VALUE_CODES


def _named(error: Exception) -> str:
    """What went wrong, without a word of the data."""
    code = getattr(error, "code", None)
    return f"{type(error).__name__} {getattr(error, 'name', '') or ''} {code if code is not None else ''}".strip()
