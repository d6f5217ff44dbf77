"""The control topics: the trigger catalogue and the thresholds, read whole at the start, then followed.

Every worker must see all of them. What is read from them is swapped into the panel as a whole; judging never waits
for it.
"""

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mode import Service

from detectors.catalogue import SHIPPED, read_records
from detectors.panel import PromptPanel
from detectors.thresholds import DEFAULTS, Links
from schemas.codec import InvalidRecord, Record, decode
from schemas.signatures import link_problem
from schemas.thresholds import ThresholdUpdate
from schemas.topics import THRESHOLDS, TRIGGERS, named
from schemas.triggers import Trigger
from streams import metrics
from streams.health import Health
from streams.kafka import followed

log = logging.getLogger(__name__)

POLL_MS = 200
SETTLE_SECONDS = 0.5  # a burst of records makes one swap


class InForce:
    """What the records of both control topics come to, and its swap into a panel."""

    def __init__(
        self, panel: PromptPanel, update_keys: Mapping[str, bytes] | None = None, suffix: str = ""
    ) -> None:
        """`update_keys`: what threshold updates are signed with; None: who may write the topic is believed.

        `suffix`: of both topics' names.
        """
        self._panel = panel
        self._records = read_records(SHIPPED)
        self._links = Links()
        self._next_end = math.inf  # when the first of them ends that had not at the last swap, seconds since 1970
        self._update_keys = update_keys
        self._takes = {named(TRIGGERS, suffix): self._take_trigger, named(THRESHOLDS, suffix): self._take_threshold}

    @property
    def topics(self) -> tuple[str, ...]:
        """Names of both."""
        return tuple(self._takes)

    def take(self, record: Record) -> None:
        """Take over a record of either topic."""
        self._takes[record.topic](record)

    def links(self) -> list[ThresholdUpdate]:
        """The link in force of each threshold that was ever moved, by version."""
        return sorted(self._links.in_force.values(), key=lambda link: link.version)

    def _take_trigger(self, record: Record) -> None:
        """Take over a record of the catalogue's topic, a tombstone too."""
        if record.value is None and record.key is not None:
            self._records.remove(record.key.decode(errors="replace"))
            return
        try:
            self._records.put(decode(Trigger, record))
        except InvalidRecord as error:
            log.error("catalogue record left out: %s", error)

    def _take_threshold(self, record: Record) -> None:
        """Take over a record of the thresholds' topic."""
        try:
            update = decode(ThresholdUpdate, record)
        except InvalidRecord as error:
            log.error("threshold update left out: %s", error)
            return
        if self._update_keys is not None and (problem := link_problem(update, self._update_keys)):
            log.error("threshold update left out: %s", problem)
            return
        try:
            self._links.take(update)
        except KeyError as error:
            log.error("threshold update %s left out: %s", update.update_id, error.args[0])

    def swap(self) -> None:
        """Have the panel judge by it. Building an index takes its time, in which the old one judges."""
        catalogue = self._records.catalogue()
        if catalogue.triggers != self._panel.catalogue.triggers:
            self._panel.swap_catalogue(catalogue)
            log.info("catalogue %d: %d triggers", catalogue.version, len(catalogue))
        end = self._links.swap_into(self._panel.thresholds, datetime.now(UTC))
        self._next_end = math.inf if end is None else end.timestamp()

    def is_due(self) -> bool:
        """Whether to swap though nothing came, because an override has ended."""
        return time.time() >= self._next_end


class Control(Service):
    """Keeps a panel's catalogue and thresholds as the topics say. Start it before the lanes."""

    def __init__(
        self, brokers: Mapping[str, Any], health: Health, panel: PromptPanel, suffix: str = "",
        update_keys: Mapping[str, bytes] | None = None,
    ) -> None:  # fmt: skip
        """`update_keys`: see `InForce`."""
        super().__init__()
        self._brokers = brokers
        self._health = health
        self._panel = panel
        self._in_force = InForce(panel, update_keys, suffix)

    def links(self) -> list[ThresholdUpdate]:
        """The link in force of each threshold that was ever moved, by version."""
        return self._in_force.links()

    async def on_start(self) -> None:
        """Read both topics to their end: the first verdict is by what is in force."""
        self._tail = await self.add_async_context(followed(self._brokers, *self._in_force.topics))
        while not await self._tail.at_end():
            await self._take()
        await self._swap()
        self._health.ready("catalogue", True)

    @Service.task
    async def _follow(self) -> None:
        while not self.should_stop:
            if await self._take() or self._in_force.is_due():
                await self.sleep(SETTLE_SECONDS)
                await self._take()
                await self._swap()

    async def _take(self) -> bool:
        """Take over what comes next, if it comes soon; whether something came."""
        records = await self._tail.read(POLL_MS)
        for record in records:
            self._in_force.take(record)
        return bool(records)

    async def _swap(self) -> None:
        await asyncio.to_thread(self._in_force.swap)
        metrics.CATALOGUE_VERSION.set(self._panel.catalogue.version)
        for kind in ("lexical", "semantic"):
            entries = sum(trigger.kind in (kind, "both") for trigger in self._panel.catalogue.triggers)
            metrics.CATALOGUE_ENTRIES.labels(kind).set(entries)
        for name in DEFAULTS:
            metrics.THRESHOLD_VALUE.labels(name).set(self._panel.thresholds[name])
