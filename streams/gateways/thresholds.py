"""Thresholds for a router to embed: what was decided, verified; else the last good; never looser than its own.

    thresholds = RouterThresholds({"novelty.flag": 0.999}, {"1": KEY}, "thresholds.json")
    task = asyncio.create_task(thresholds.poll("http://pointsman:8080/thresholds"))  # or follow_topic(...)
    thresholds.value("novelty.flag")  # or value("novelty.flag", scope_of("novelty.flag", "a tenant's id"))

`pointsman threshold keys` prints the keys. The limits given here are the router's own and win over everything: no
link, however well signed, makes a value looser than them. A link counts when it is signed, newer than the one
before and, where it comes right after one that was seen, follows it in the chain. What counts is kept in the file,
so that a router that starts while nobody can be reached goes on with it. It needs msgspec, aiohttp for `poll` and
aiokafka and PyYAML for `follow_topic`.
"""

import asyncio
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from schemas.codec import InvalidRecord, decode
from schemas.signatures import link_problem
from schemas.thresholds import IN_FORCE, ThresholdScope, ThresholdUpdate, looser, scope_of, value_at
from schemas.topics import THRESHOLDS, named

log = logging.getLogger(__name__)

POLL_SECONDS = 5.0
TIMEOUT_SECONDS = 5.0
MOST_BYTES = 8 << 20

_decode_links = msgspec.json.Decoder(list[ThresholdUpdate]).decode
_NOT_LINKS = (msgspec.MsgspecError, ValueError, RecursionError)  # what decoding anything at all may raise


class RouterThresholds:
    """Values by parameter and scope. For one event loop; `value` may be asked from any thread."""

    def __init__(self, limits: Mapping[str, float], keys: Mapping[str, str], file: str | Path) -> None:
        """`limits`: the loosest value of each parameter that the router asks for; `keys`: hexadecimal, by id.

        Raises:
            ValueError: a key is not hexadecimal.
        """
        self._limits = dict(limits)
        self._keys = {key_id: bytes.fromhex(key) for key_id, key in keys.items()}
        self._file = Path(file)
        self._links: dict[tuple[str, ThresholdScope], ThresholdUpdate] = {}
        self._newest: ThresholdUpdate | None = None
        self._load()

    def value(self, parameter: str, scope: ThresholdScope | None = None) -> float:
        """The value to use now: the strictest of this scope's (default: `scope_of`), the fleet's and the limit.

        Raises:
            KeyError: no limit was given for the parameter.
        """
        strictest, scope = self._limits[parameter], scope or scope_of(parameter)
        for place in (scope, msgspec.structs.replace(scope, tenant_id="")):
            link = self._links.get((parameter, place))
            value = strictest if link is None else value_at(link, datetime.now(UTC))
            strictest = strictest if looser(parameter, value, strictest) else value
        return strictest

    @property
    def version(self) -> int:
        """Of the newest link that counted; 0: none has."""
        return self._newest.version if self._newest else 0

    def take(self, link: ThresholdUpdate) -> bool:
        """Take a link that came from anywhere; whether it counts."""
        before = self._links.get((link.parameter, link.scope))
        if before is not None and link.version <= before.version:
            return False  # known, or a copy of an old one
        if problem := link_problem(link, self._keys):
            log.error("threshold not taken: %s", problem)
            return False
        newest = self._newest
        if newest is not None and link.version == newest.version + 1 and link.prev_hash != newest.hash:
            log.error("threshold not taken: version %d does not follow the one before", link.version)
            return False
        if newest is None or link.version > newest.version:
            self._newest = link
        if link.mode not in IN_FORCE:
            return False
        self._links[link.parameter, link.scope] = link
        return True

    def take_all(self, body: bytes) -> int:
        """Take a JSON list of links, as `/thresholds` gives it, and keep the file; how many counted.

        Raises:
            msgspec.MsgspecError, ValueError, RecursionError: it is none; nothing was taken.
        """
        counted = sum([self.take(link) for link in sorted(_decode_links(body), key=lambda link: link.version)])
        if counted:
            self._save()
        return counted

    # --- where links come from

    async def poll(self, url: str, seconds: float = POLL_SECONDS) -> None:
        """Ask a worker's `/thresholds` now and then, until cancelled. Errors are logged, and change nothing."""
        import aiohttp

        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)) as session:
            while True:
                try:
                    async with session.get(url, allow_redirects=False) as response:
                        response.raise_for_status()
                        body = bytearray()
                        async for chunk in response.content.iter_any():
                            body += chunk
                            if len(body) > MOST_BYTES:
                                raise ValueError("too long")
                        self.take_all(bytes(body))
                except (aiohttp.ClientError, TimeoutError, OSError, *_NOT_LINKS) as error:
                    log.warning("thresholds are not followed: %s", type(error).__name__)
                await asyncio.sleep(seconds)

    async def follow_topic(self, connection: Mapping[str, Any], suffix: str = "") -> None:
        """Follow the topic, until cancelled. `connection`: aiokafka's arguments, `bootstrap_servers` at least.

        Raises:
            KafkaError: the brokers refuse us.
        """
        from aiokafka import AIOKafkaConsumer, TopicPartition

        from streams.kafka import read_batches

        consumer = AIOKafkaConsumer(**connection, isolation_level="read_committed", enable_auto_commit=False)
        async with consumer:
            place = TopicPartition(named(THRESHOLDS, suffix), 0)
            consumer.assign([place])
            await consumer.seek_to_beginning(place)
            while True:
                counted = 0
                positions = {place: await consumer.position(place)}
                for record in (await read_batches(consumer, positions, 1000, 10_000)).get(place, ()):
                    try:
                        counted += self.take(decode(ThresholdUpdate, record))
                    except InvalidRecord:
                        log.error("threshold not taken: offset %d holds something else", record.offset)
                if counted:
                    self._save()

    # --- the file

    def _load(self) -> None:
        try:
            body = self._file.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            log.error("the file of thresholds cannot be read, so the limits hold: %s", error)
            return
        try:
            for link in sorted(_decode_links(body), key=lambda link: link.version):
                self.take(link)
        except _NOT_LINKS:
            log.error("the file of thresholds holds something else, so the limits hold: %s", self._file)

    def _save(self) -> None:
        """Whole or not at all. A disk that is full costs the memory of a restart, nothing else."""
        beside = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        try:
            beside.write_bytes(msgspec.json.encode(list(self._links.values())))
            beside.replace(self._file)
        except OSError as error:
            log.error("the file of thresholds cannot be written: %s", error)
