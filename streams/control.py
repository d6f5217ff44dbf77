"""The control topics: the trigger catalogue and the thresholds, read whole at the start, then followed.

These are plain Faust topics: low in rate, and every worker must see all of them. What is read from them is
swapped into the panel as a whole; judging never waits for it.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterable, Mapping
from datetime import UTC, datetime
from typing import Any

import faust
from mode import Service

from detectors.catalogue import SHIPPED, read_records
from detectors.panel import PromptPanel
from detectors.thresholds import DEFAULTS
from schemas.codec import InvalidRecord, Record, decode
from schemas.signatures import link_problem
from schemas.thresholds import FROZEN, IN_FORCE, ROUTING, ThresholdScope, ThresholdUpdate, value_at
from schemas.topics import THRESHOLDS, TRIGGERS, named
from schemas.triggers import Trigger
from streams import metrics
from streams.health import Health
from streams.kafka import read_to_end

log = logging.getLogger(__name__)

SETTLE_SECONDS = 0.5  # a burst of catalogue records makes one swap


class InForce:
    """What the records of both control topics come to, and its swap into a panel."""

    def __init__(self, panel: PromptPanel, update_keys: Mapping[str, bytes] | None = None) -> None:
        """`update_keys`: what threshold updates are signed with; None: who may write the topic is believed."""
        self._panel = panel
        self._records = read_records(SHIPPED)
        self._judged_by: dict[tuple[str, str], ThresholdUpdate] = {}  # by parameter, and tenant or "" for all
        self._next_end = math.inf  # when the first of them ends that had not at the last swap, seconds since 1970
        self.links: dict[tuple[str, ThresholdScope], ThresholdUpdate] = {}
        self._update_keys = update_keys
        self._version = 0

    def take_trigger(self, record: Record) -> None:
        """Take over a record of the catalogue's topic, a tombstone too."""
        if record.value is None and record.key is not None:
            self._records.remove(record.key.decode(errors="replace"))
            return
        try:
            self._records.put(decode(Trigger, record))
        except InvalidRecord as error:
            log.error("catalogue record left out: %s", error)

    def take_threshold(self, record: Record) -> None:
        """Take over a record of the thresholds' topic."""
        try:
            update = decode(ThresholdUpdate, record)
        except InvalidRecord as error:
            log.error("threshold update left out: %s", error)
            return
        if self._update_keys is not None and (problem := link_problem(update, self._update_keys)):
            log.error("threshold update left out: %s", problem)
            return
        name, scope = (update.parameter, update.scope), update.scope
        if update.mode not in IN_FORCE or (name in self.links and update.version <= self.links[name].version):
            return  # a proposal, or a copy of an old link, which must not bring its value back
        self.links[name] = update
        if update.parameter in (FROZEN, *ROUTING) or scope.route or scope.category:
            return  # what workers do not judge by
        if update.parameter not in DEFAULTS:
            log.error("threshold update %s names no parameter of ours: left out", update.update_id)
            return
        self._judged_by[update.parameter, scope.tenant_id] = update
        self._version = max(self._version, update.version)

    def swap(self) -> None:
        """Have the panel judge by it. Building an index takes its time, in which the old one judges."""
        catalogue = self._records.catalogue()
        if catalogue.triggers != self._panel.catalogue.triggers:
            self._panel.swap_catalogue(catalogue)
            log.info("catalogue %d: %d triggers", catalogue.version, len(catalogue))
        now, links = datetime.now(UTC), dict(self._judged_by)
        ends = [link.expires_at for link in links.values() if link.expires_at is not None and link.expires_at > now]
        self._next_end = min(ends).timestamp() if ends else math.inf
        values = {name: value_at(link, now) for name, link in links.items()}
        fleet = {parameter: value for (parameter, tenant), value in values.items() if not tenant}
        own = {name: value for name, value in values.items() if name[1]}
        self._panel.thresholds.swap(fleet, self._version, own)

    def seconds_left(self) -> float:
        """Until a swap is due though nothing comes, because an override ends; infinite where none does."""
        return max(0.0, self._next_end - time.time())


class Control(Service):
    """Keeps a panel's catalogue and thresholds as the topics say. Start it before the lanes."""

    def __init__(
        self, app: faust.App, brokers: Mapping[str, Any], health: Health, panel: PromptPanel, suffix: str = "",
        update_keys: Mapping[str, bytes] | None = None,
    ) -> None:  # fmt: skip
        """`update_keys`: see `InForce`."""
        super().__init__()
        self._brokers = brokers
        self._health = health
        self._panel = panel
        self._suffix = suffix
        self._in_force = InForce(panel, update_keys)
        self._changed = asyncio.Event()
        for topic, follow in ((TRIGGERS, self._follow_triggers), (THRESHOLDS, self._follow_thresholds)):
            source = app.topic(named(topic, suffix), value_serializer="raw", key_serializer="raw")
            app.agent(source, name=f"control.{topic.name}")(follow)

    def links(self) -> list[ThresholdUpdate]:
        """The link in force of each threshold that was ever moved, by version."""
        return sorted(self._in_force.links.values(), key=lambda link: link.version)

    async def on_start(self) -> None:
        """Read both topics to their end: the first verdict is by what is in force."""
        async for record in read_to_end(self._brokers, named(TRIGGERS, self._suffix)):
            self._in_force.take_trigger(record)
        async for record in read_to_end(self._brokers, named(THRESHOLDS, self._suffix)):
            self._in_force.take_threshold(record)
        await self._swap()
        self._health.ready("catalogue", True)

    async def _follow_triggers(self, stream: Any) -> None:
        async for event in _messages(stream):
            self._in_force.take_trigger(event)
            self._changed.set()

    async def _follow_thresholds(self, stream: Any) -> None:
        async for event in _messages(stream):
            self._in_force.take_threshold(event)
            self._changed.set()

    @Service.task
    async def _swap_when_changed(self) -> None:
        while not self.should_stop:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), self._in_force.seconds_left())
            await self.sleep(SETTLE_SECONDS)
            self._changed.clear()
            await self._swap()

    async def _swap(self) -> None:
        await asyncio.to_thread(self._in_force.swap)
        metrics.CATALOGUE_VERSION.set(self._panel.catalogue.version)
        for kind in ("lexical", "semantic"):
            entries = sum(trigger.kind in (kind, "both") for trigger in self._panel.catalogue.triggers)
            metrics.CATALOGUE_ENTRIES.labels(kind).set(entries)
        for name in DEFAULTS:
            metrics.THRESHOLD_VALUE.labels(name).set(self._panel.thresholds[name])


async def _messages(stream: Any) -> AsyncIterable[Any]:
    """The records themselves, tombstones too."""
    async for event in stream.events():
        yield event.message
