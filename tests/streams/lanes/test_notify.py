"""The notify lane on a real broker: at least once, each channel in its own time, restarts included."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiokafka import AIOKafkaProducer

from loadtests.hostile import send_undecodable
from schemas.alerts import Alert
from schemas.codec import encode
from schemas.topics import ALERTS, named
from streams.embedded.kafka import KafkaCluster
from streams.health import Health
from streams.lanes.notify import NotifyLane, channels
from streams.notifiers.base import Notifier
from streams.notifiers.cap import Cap
from streams.notifiers.channel import Channel
from streams.notifiers.webhook import WebhookNotifier
from streams.settings import Kafka, Notify, Settings
from streams.topics import create_topics
from tests.streams.notifiers.alerts import alert
from tests.streams.notifiers.receiver import Receiver, receiving


class Topic:
    """The alerts topic of one test."""

    def __init__(self, kafka: KafkaCluster, run_id: str, producer: AIOKafkaProducer) -> None:
        self.kafka = kafka
        self.run_id = run_id
        self.producer = producer
        self.patience = 60.0  # seconds that a lane of it may run

    async def write(self, *states: Alert | bytes) -> None:
        for state in states:
            value, key = (state, None) if isinstance(state, bytes) else (encode(state), state.fingerprint.encode())
            await self.producer.send_and_wait(named(ALERTS, self.run_id), value, key=key)

    @asynccontextmanager
    async def lane(self, *notifiers: Notifier | Channel) -> AsyncIterator[None]:
        """A worker's notify lane, once it follows; its end is that of a killed one: nothing is waited for."""
        settings = Settings(kafka=Kafka(bootstrap=self.kafka.bootstrap, topic_suffix=self.run_id))
        quick = [
            n if isinstance(n, Channel) else Channel(n, gap_seconds=0.0, first_pause=0.01, longest_pause=0.05)
            for n in notifiers
        ]
        lane = NotifyLane(settings, self.kafka.connection, Health(), quick)
        async with lane, asyncio.timeout(self.patience):
            await lane.following()
            yield


@pytest.fixture
async def topic(kafka: KafkaCluster, run_id: str) -> AsyncIterator[Topic]:
    await create_topics(kafka.connection, 1, 1, run_id)
    async with AIOKafkaProducer(**kafka.connection) as producer:
        yield Topic(kafka, run_id, producer)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as started:
        yield started


class Recorder:
    """A receiver that forgets what is not sent again."""

    name = "recorder"
    resend_seconds = 0.05

    def __init__(self) -> None:
        self.messages: list[list[tuple[str, str, int]]] = []
        self.sent = asyncio.Condition()

    async def send(self, alerts: Sequence[Alert]) -> None:
        async with self.sent:
            self.messages.append([(a.labels["trigger_id"], a.status, a.count) for a in alerts])
            self.sent.notify_all()

    async def close(self) -> None:
        pass

    async def wait_for(self, number: int) -> list[list[tuple[str, str, int]]]:
        """Messages, once there are that many more than now."""
        seen = len(self.messages)
        async with self.sent, asyncio.timeout(60):
            await self.sent.wait_for(lambda: len(self.messages) >= seen + number)
        return self.messages[seen:]


async def test_transitions_are_told_once_and_restarts_go_on_where_they_were(
    topic: Topic, receiver: Receiver
) -> None:
    async with topic.lane(WebhookNotifier(receiver.url)):
        await topic.write(alert("a"), alert("a", sequence=2, count=10), alert("b"))
        await receiver.wait_taken(2)
    await topic.write(alert("a", sequence=3, count=20), alert("a", "resolved", 4), alert("c"))
    async with topic.lane(WebhookNotifier(receiver.url)):
        await receiver.wait_taken(4)
    async with topic.lane(WebhookNotifier(receiver.url)):
        await topic.write(b"broken")
        await send_undecodable(topic.producer, named(ALERTS, topic.run_id), 0)
        await topic.write(alert("d"))
        await receiver.wait_taken(5)
    assert receiver.statuses() == [
        ("a", "firing"),
        ("b", "firing"),
        ("a", "resolved"),
        ("c", "firing"),
        ("d", "firing"),
    ]


async def test_states_that_a_restarted_fleet_lane_publishes_again_are_not_told_again(
    topic: Topic, receiver: Receiver
) -> None:
    async with topic.lane(WebhookNotifier(receiver.url)):
        await topic.write(alert("a"), alert("a", "resolved", 2))
        await receiver.wait_taken(2)
    async with topic.lane(WebhookNotifier(receiver.url)):  # it knows from the topic
        await topic.write(alert("a"), alert("a", "resolved", 2), alert("b"))
        await receiver.wait_taken(3)
    assert receiver.statuses() == [("a", "firing"), ("a", "resolved"), ("b", "firing")]


async def test_killed_between_delivery_and_commit_it_tells_again_and_loses_nothing(
    topic: Topic, receiver: Receiver
) -> None:
    receiver.script = ["hang"]  # it has the message, but its answer never comes
    async with topic.lane(WebhookNotifier(receiver.url)):
        await topic.write(alert("a"))
        await receiver.wait_seen(1)
    await topic.write(alert("a", "resolved", 2))
    async with topic.lane(WebhookNotifier(receiver.url)):
        await receiver.wait_taken(2)
    assert receiver.seen >= 2
    assert receiver.statuses() == [("a", "firing"), ("a", "resolved")]


def bad(receiver: Receiver, name: str) -> WebhookNotifier:
    notifier = WebhookNotifier(receiver.url, timeout_seconds=0.5)
    notifier.name = name
    return notifier


async def dead_receivers(topic: Topic, receiver: Receiver, failures: int, alerts: int) -> None:
    """One hangs, one answers 500, one drops connections: the healthy one waits for none of them."""
    async with receiving() as hangs, receiving() as fails, receiving() as drops:
        hangs.script = ["hang"] * failures
        fails.script = [web.Response(status=500) for _ in range(failures)]
        drops.script = ["drop"] * failures
        dead = [bad(hangs, "hangs"), bad(fails, "fails"), bad(drops, "drops")]
        expected = [(str(number), "firing") for number in range(alerts)]
        async with topic.lane(*dead, WebhookNotifier(receiver.url)):
            for number in range(alerts):
                await topic.write(alert(str(number)))
                await receiver.wait_taken(number + 1)
                assert not hangs.taken  # they are dead still, and nobody waited for them
            assert receiver.statuses() == expected
            for late in (hangs, fails, drops):
                late.script.clear()
                await late.wait_taken(alerts)
                assert late.statuses() == expected


async def test_dead_receivers_delay_no_other_and_get_their_own_later(topic: Topic, receiver: Receiver) -> None:
    await dead_receivers(topic, receiver, failures=1_000, alerts=5)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_dead_receivers_for_minutes(topic: Topic, receiver: Receiver) -> None:
    receiver.delay, topic.patience = 1.0, 600.0
    await dead_receivers(topic, receiver, failures=100_000, alerts=180)


def capped(receiver: Receiver, per_minute: int) -> Channel:
    notifier = WebhookNotifier(receiver.url)
    return Channel(notifier, gap_seconds=0.0, first_pause=0.01, cap=Cap(notifier.name, per_minute))


async def test_what_a_cap_holds_back_is_told_in_a_summary_or_after_a_restart(
    topic: Topic, receiver: Receiver
) -> None:
    async with topic.lane(capped(receiver, 1)):
        await topic.write(alert("a"), alert("b"))
        await receiver.wait_taken(2)
        assert receiver.statuses() == [("a", "firing"), ("", "firing")]  # the second is the summary
        # Within its minute: held back, and no summary yet. The lane is killed then.
        await topic.write(alert("c"), alert("d"), alert("e", alertname="another"))
        await receiver.wait_taken(3)
        assert receiver.statuses()[2] == ("e", "firing")
    async with topic.lane(capped(receiver, 100)):
        await receiver.wait_taken(6)
    assert receiver.statuses()[3:] == [("c", "firing"), ("d", "firing"), ("e", "firing")]


async def test_a_new_channel_is_told_what_fires_now_and_not_what_has_been(topic: Topic, receiver: Receiver) -> None:
    await topic.write(alert("a"), alert("b"), alert("a", "resolved", 2), alert("b", sequence=2, count=10))
    async with topic.lane(WebhookNotifier(receiver.url)):
        await receiver.wait_taken(1)
        await topic.write(alert("c"))
        await receiver.wait_taken(2)
    assert receiver.statuses() == [("b", "firing"), ("c", "firing")]


async def test_what_came_and_went_while_nobody_ran_is_told(topic: Topic, receiver: Receiver) -> None:
    async with topic.lane(WebhookNotifier(receiver.url)):
        pass  # it has begun at the empty topic
    await topic.write(alert("a"), alert("a", "resolved", 2))
    async with topic.lane(WebhookNotifier(receiver.url)):
        await receiver.wait_taken(2)
    assert receiver.statuses() == [("a", "firing"), ("a", "resolved")]


async def test_what_fires_is_sent_again_from_the_topic_alone_until_it_resolves(topic: Topic) -> None:
    first = Recorder()
    async with topic.lane(first):
        await topic.write(alert("a"), alert("b"), alert("b", "resolved", 2), alert("a", sequence=2, count=7))
        await first.wait_for(4)
    assert first.messages[-1] == [("a", "firing", 7)]

    second = Recorder()  # nothing is new, and it knows
    async with topic.lane(second):
        assert await second.wait_for(3) == [[("a", "firing", 7)]] * 3
        await topic.write(alert("a", "resolved", 3))
        while second.messages[-1] != [("a", "resolved", 3)]:
            await second.wait_for(1)
        await topic.write(alert("c"))
        assert await second.wait_for(3) == [[("c", "firing", 3)]] * 3


async def test_two_workers_share_the_partitions_and_one_takes_over(kafka: KafkaCluster, run_id: str) -> None:
    await create_topics(kafka.connection, 4, 1, run_id)
    async with AIOKafkaProducer(**kafka.connection) as producer, receiving() as receiver:
        topic = Topic(kafka, run_id, producer)
        states = [alert(str(number)) for number in range(40)]
        async with topic.lane(WebhookNotifier(receiver.url)):
            await topic.write(*states[:10])
            await receiver.wait_taken(10)
            async with topic.lane(WebhookNotifier(receiver.url)):
                await topic.write(*states[10:30])
                await receiver.wait_taken(30)
            await topic.write(*states[30:])
            await receiver.wait_taken(40)
        assert {name for name, _ in receiver.statuses()} == {str(number) for number in range(40)}


def test_the_settings_say_which_channels_there_are() -> None:
    made = channels(
        Notify(
            console=True, webhook_url="http://127.0.0.1/x", alertmanager_url="http://127.0.0.1:9093",
            slack_url="http://127.0.0.1/s", pagerduty_routing_key="key",
        )
    )  # fmt: skip
    assert [channel.name for channel in made] == ["alertmanager", "console", "webhook", "slack", "pagerduty"]
    assert channels(Notify(console=False)) == []
