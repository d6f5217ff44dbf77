"""The notify lane: alerts to their receivers, at least once, each receiver in its own time.

Every channel reads the alerts topic in a consumer group of its own, tells what is news, and commits when that is
delivered: the backlog of a dead receiver is Kafka's, a restart needs no other store, and no channel waits for
another. What fires now is known from reading a partition from its beginning; what lies before the group's
commit was told before, and is only noted. A channel without a commit is new: it is told what fires now.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError
from mode import Service

from detectors.processor import Record
from schemas.alerts import Alert
from schemas.codec import InvalidRecord, decode
from schemas.topics import ALERTS, named
from streams.health import Health
from streams.kafka import read_assigned
from streams.notifiers.alertmanager import AlertmanagerNotifier
from streams.notifiers.base import Notifier
from streams.notifiers.cap import Cap
from streams.notifiers.channel import Channel
from streams.notifiers.console import ConsoleNotifier
from streams.notifiers.ledger import Ledger
from streams.notifiers.pagerduty import PagerDutyNotifier
from streams.notifiers.slack import SlackNotifier
from streams.notifiers.webhook import WebhookNotifier
from streams.settings import Notify, Settings

log = logging.getLogger(__name__)

_POLL_MS = 1_000
_DAY_MS = 86_400_000


def channels(settings: Notify) -> list[Channel]:
    """The channels that the settings ask for. Alertmanager has no cap: it groups and holds back itself."""
    made = []
    if settings.alertmanager_url:
        made.append(Channel(AlertmanagerNotifier(settings.alertmanager_url)))
    if settings.console:
        made.append(_capped(ConsoleNotifier(), settings))
    if settings.webhook_url:
        made.append(_capped(WebhookNotifier(settings.webhook_url, settings.webhook_secret), settings))
    if settings.slack_url:
        made.append(_capped(SlackNotifier(settings.slack_url), settings, SlackNotifier.most_alerts))
    if settings.pagerduty_routing_key:
        pagerduty = PagerDutyNotifier(settings.pagerduty_routing_key, settings.pagerduty_url)
        made.append(_capped(pagerduty, settings, PagerDutyNotifier.most_alerts))
    return made


def _capped(notifier: Notifier, settings: Notify, most_alerts: int = 100) -> Channel:
    per_minute = settings.alerts_per_minute
    cap = Cap(notifier.name, per_minute) if per_minute else None
    return Channel(notifier, most_alerts=most_alerts, cap=cap)


class NotifyLane(Service):
    """Hosts one `Follower` a channel; the failure of one (not of its receiver) ends the service."""

    def __init__(
        self,
        settings: Settings,
        connection: Mapping[str, Any],
        health: Health,
        channels_: Sequence[Channel] | None = None,
    ) -> None:
        """`connection`: how to reach the brokers (`streams.kafka.connection`). `channels_`: None: the settings'."""
        super().__init__()
        suffix = settings.kafka.topic_suffix
        self._health = health
        self._followers = [
            Follower(channel, connection, named(ALERTS, suffix), f"{settings.notify.group}-{channel.name}{suffix}")
            for channel in (channels(settings.notify) if channels_ is None else channels_)
        ]

    async def on_start(self) -> None:
        """Start to follow."""
        for follower in self._followers:
            self.add_future(follower.run())
        self.add_future(self._report())

    async def following(self) -> None:
        """Wait until every channel has its partitions and knows where it goes on."""
        for follower in self._followers:
            await follower.following.wait()

    async def _report(self) -> None:
        await self.following()
        self._health.ready("notify", True)


@dataclass(slots=True)
class _Partition:
    """One that is ours. A rebalance replaces it, so that what still holds the old one changes nothing."""

    ledger: Ledger = field(default_factory=Ledger)
    told: int | None = None  # what lies before this offset is only noted; None: not known yet
    new: bool = False  # the group has no commit
    rebuilt: bool = False  # the ledger has all that lies before `told`


class Follower:
    """One channel's reader of the alerts topic."""

    def __init__(self, channel: Channel, connection: Mapping[str, Any], topic: str, group: str) -> None:
        self._channel = channel
        self._connection = connection
        self._topic = topic
        self._group = group
        self._partitions: dict[TopicPartition, _Partition] | None = None  # None: before the first assignment
        self.following = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled. Raises KafkaError when Kafka gives up on us."""
        self._consumer = AIOKafkaConsumer(
            **self._connection,
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            max_poll_interval_ms=_DAY_MS,  # delivery may take long; heartbeats go on meanwhile
        )
        self._consumer.subscribe([self._topic], listener=_Listener(self))
        await self._consumer.start()
        try:
            await self._follow()
        finally:
            await self._consumer.stop()
            await self._channel.notifier.close()

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        """All that is ours from now on, to be read from the beginning. Called while the group rebalances."""
        self._partitions = {at: _Partition() for at in partitions}
        for at in partitions:
            self._consumer.seek(at, 0)

    async def _follow(self) -> None:
        clock = asyncio.get_running_loop().time
        resend = self._channel.notifier.resend_seconds
        resend_at = clock() + (resend or 0.0)
        delivered: dict[TopicPartition, int] = {}
        of: Mapping[TopicPartition, _Partition] | None = None
        while True:
            wait_ms = min(_POLL_MS, max(0, round(1000 * (resend_at - clock())))) if resend else _POLL_MS
            batches = await read_assigned(self._consumer, wait_ms)
            partitions = self._partitions
            if partitions is None:
                continue
            await self._find_out_what_was_told(partitions)
            if self._partitions is not partitions:
                continue  # a rebalance, and all is read again
            self.following.set()
            if of is not partitions:  # what was delivered for an assignment that is over is not ours to commit
                of, delivered = partitions, {}
            news: list[Alert] = []
            for at, records in batches.items():
                news += _news(partitions[at], records)
            await self._channel.deliver(news)
            delivered |= {at: records[-1].offset + 1 for at, records in batches.items()}
            if self._channel.settled:
                await self._commit(partitions, delivered)
                delivered = {}
            if resend and clock() >= resend_at:
                resend_at = clock() + resend
                await self._channel.deliver(_firing(partitions.values()))

    async def _find_out_what_was_told(self, partitions: Mapping[TopicPartition, _Partition]) -> None:
        for at, partition in partitions.items():
            if partition.told is not None:
                continue
            told = await self._consumer.committed(at)
            partition.new = told is None
            if told is None:
                told = (await self._consumer.end_offsets([at]))[at]
            partition.told = told
            partition.rebuilt = told == 0
            if partition.new and partition.rebuilt:
                await self._commit(partitions, {at: 0})  # whatever comes from now on is to be told

    async def _commit(
        self, partitions: Mapping[TopicPartition, _Partition], ends: Mapping[TopicPartition, int]
    ) -> None:
        """Commit what was delivered, unless it is history still, or a rebalance has come since."""
        offsets = {at: end for at, end in ends.items() if partitions[at].rebuilt}
        if not offsets or self._partitions is not partitions:
            return
        try:
            await self._consumer.commit(offsets)
        except KafkaError as error:  # whoever has the partition next tells it again
            log.warning("notifier %s: delivered, but not committed: %r", self._channel.name, error)


def _news(partition: _Partition, records: Sequence[Record]) -> list[Alert]:
    """Note the records; what of them is to be told."""
    ledger, told = partition.ledger, partition.told or 0
    for record in records:
        if record.offset < told:
            _take(ledger, record)
    news: list[Alert] = []
    if not partition.rebuilt and records[-1].offset + 1 >= told:
        partition.rebuilt = True
        news += ledger.firing() if partition.new else ()
    for record in records:
        if record.offset >= told and (alert := _take(ledger, record)):
            news.append(alert)
    return news


def _firing(partitions: Iterable[_Partition]) -> Iterator[Alert]:
    for partition in partitions:
        if partition.rebuilt:  # or it may have been resolved further on
            yield from list(partition.ledger.firing())


def _take(ledger: Ledger, record: Record) -> Alert | None:
    """The alert, when it is news."""
    try:
        alert = decode(Alert, record)
    except InvalidRecord as error:
        log.error("not an alert: %s", error)
        return None
    return alert if ledger.take(alert) else None


class _Listener(ConsumerRebalanceListener):
    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Nothing: what is being delivered is told again by the next owner."""

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._follower.assign(assigned)
