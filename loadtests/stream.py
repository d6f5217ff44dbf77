"""Traffic with attacks in it, made beforehand and played live by a thread; knows what was acknowledged."""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer

from detectors.catalogue import shipped
from loadtests.attacks.campaigns import KINDS
from loadtests.attacks.known import known
from loadtests.attacks.scene import Scene
from loadtests.background import Background
from loadtests.fleet import Fleet
from loadtests.player import SOURCE
from loadtests.prompts import data_dir
from loadtests.router import DifficultyRouter
from loadtests.traffic import START, Attack, Sent, attacks_in, events, score_all
from schemas.codec import encode, event_headers
from schemas.events import AnyEvent, Request
from schemas.topics import EVENTS, named

WAVE_SECONDS = 6.0  # from one wave of attacks to the next
WAVE_REQUESTS = 8
TICK_S = 0.01
PATIENCE_MS = 120_000  # of the producer: brokers come back within it


@dataclass(frozen=True, slots=True)
class Script:
    """Events in order of publication, in seconds from the start, and the attacks among them."""

    sent: Sequence[Sent]
    attacks: Sequence[Attack]


def with_waves(seconds: float, rate: float, seed: int) -> Script:
    """Ordinary traffic at `rate` requests a second, and every few seconds a catalogued trigger, mutated."""
    router = DifficultyRouter.load("words")
    fleet = Fleet(seed, data_dir(), principals=200, tenants=30)
    asks = fleet.asks(int(seconds * rate), rate)
    triggers = [entry.text for entry in shipped().triggers if entry.kind != "semantic" and entry.direction == "up"]
    for wave in range(min(int(seconds / WAVE_SECONDS), 25)):  # each turns four callers: there are not more
        scene = Scene(fleet, router, random.Random(f"{seed}/{wave}"), 1.0 + wave * WAVE_SECONDS, WAVE_SECONDS / 2)
        asks += known(scene, triggers, WAVE_REQUESTS)
    asks.sort(key=lambda ask: ask.at)
    return Script(events(asks, score_all(router, asks), router, seed), attacks_in(asks, KINDS, seed))


class Stream(Background):
    """Plays a script until it is stopped. A slow broker delays what follows and loses none of it."""

    def __init__(self, script: Script, brokers: Mapping[str, Any], suffix: str, own_clock: bool = False) -> None:
        """`own_clock`: records carry our timestamps, moved by `clock_off_s`; the topic must take them."""
        super().__init__()
        self.requests: set[str] = set()  # event ids of requests that were acknowledged
        self.clock_off_s = 0.0  # of the brokers' clock, where it is ours
        self.gateways_off_s = 0.0  # of the gateways' clocks
        self._script = script
        self._brokers = brokers
        self._topic = named(EVENTS, suffix)
        self._own_clock = own_clock

    def play(self, seconds: float) -> None:
        """Let it run on for so long.

        Raises:
            BaseException: what ended it.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, 0.2))

    def recall(self, flagged: set[str]) -> float:
        """Share of the planted requests that were sent whose id is among the flagged ones."""
        planted = [
            identity
            for attack in self._script.attacks
            for identity in attack.request_ids
            if f"{identity}/request" in self.requests
        ]
        return sum(identity in flagged for identity in planted) / max(1, len(planted))

    def work(self) -> None:
        """Play to the end, and wait for all deliveries."""
        asyncio.run(self._play())

    async def _play(self) -> None:
        async with AIOKafkaProducer(
            **self._brokers, acks="all", enable_idempotence=True, linger_ms=5, max_batch_size=1 << 20,
            request_timeout_ms=PATIENCE_MS,
        ) as producer:  # fmt: skip
            start = datetime.now(UTC)
            for at, event in self._script.sent:
                while not self.stopping.is_set():
                    if (wait := at - (datetime.now(UTC) - start).total_seconds()) <= 0:
                        break
                    await asyncio.sleep(min(max(wait, TICK_S), 0.1))
                if self.stopping.is_set():
                    break
                await self._send(producer, event, start)
            else:
                if not self.stopping.is_set():
                    raise RuntimeError("the script is too short for what is done meanwhile")
            await producer.flush()

    async def _send(self, producer: AIOKafkaProducer, event: AnyEvent, start: datetime) -> None:
        moved = event.event_time - START + start + timedelta(seconds=self.gateways_off_s)
        event = msgspec.structs.replace(event, event_time=moved)
        stamp = round((time.time() + self.clock_off_s) * 1000) if self._own_clock else None
        sent = await producer.send(
            self._topic, encode(event), key=event.principal_hash.encode(), timestamp_ms=stamp,
            headers=event_headers(event, SOURCE),
        )  # fmt: skip
        if isinstance(event, Request):
            identity = event.event_id
            sent.add_done_callback(lambda done: None if done.exception() else self.requests.add(identity))
