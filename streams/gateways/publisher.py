"""Events from a Python gateway to Kafka, never at the expense of the gateway's own requests.

`publish` puts an event in a bounded queue and returns; a thread of our own, with its own event loop, sends what
is there. A broker that is away costs memory up to the bound and then events, which are counted, not the
gateway's time and not an exception.
"""

import asyncio
import atexit
import contextlib
import logging
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from schemas.codec import MAX_VALUE_BYTES, encode, event_headers
from schemas.events import AnyEvent
from schemas.topics import EVENTS, named
from streams.kafka import connection
from streams.metrics import GATEWAY_EVENTS
from streams.settings import Settings, SettingsError

log = logging.getLogger(__name__)

QUEUE_BYTES = 32 << 20
RECORD_BYTES = 1_000  # what a record weighs in the queue beside its value: headers and objects
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
EXIT_SECONDS = 3.0  # for what is queued when the gateway's process ends

_check = msgspec.json.Decoder(AnyEvent).decode


class _Record(NamedTuple):
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]

    @property
    def weight(self) -> int:
        return len(self.value) + RECORD_BYTES


class Publisher:
    """Sends events, keyed by principal, as CloudEvents in binary mode. One a process; thread-safe.

    `counts` has an event under `ok` once the brokers have it, `invalid` (it breaks schemas/events.py), `dropped`
    (no room, or closed), or `failed` (not delivered in time). Starts with its first event, so that a gateway may
    fork before.
    """

    def __init__(
        self, brokers: Mapping[str, Any], source: str, *, topic: str = EVENTS.name, gateway: str = "python",
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:  # fmt: skip
        """`brokers`: keyword arguments of aiokafka's clients (`streams.kafka.connection` makes them of settings);
        `source`: the gateway's URI reference, as `//litellm/eu/pod-7`; `gateway`: a label of the metric.
        """
        self._brokers = dict(brokers)
        self._source = source
        self._topic = topic
        self._gateway = gateway
        self._queue_bytes = queue_bytes
        self._queue: deque[_Record] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # it and what follows belong to the thread
        self._wake = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def counts(self) -> dict[str, int]:
        """Events so far by what became of them; those still queued are in none."""
        with self._lock:
            return dict(self._counts)

    @property
    def dropped(self) -> int:
        """Events that found no room, or came after the end."""
        return self.counts.get("dropped", 0)

    @property
    def queued_bytes(self) -> int:
        """What waits to be sent."""
        return self._bytes

    def publish(self, event: AnyEvent, traceparent: str = "") -> bool:
        """Queue an event; False if it was dropped. Never waits for a broker, never raises."""
        try:
            value = encode(event)
            if len(value) > MAX_VALUE_BYTES:
                raise ValueError(f"{len(value)} bytes, over {MAX_VALUE_BYTES}")
            _check(value)
            headers = event_headers(event, self._source, traceparent)
            record = _Record(event.principal_hash.encode(), value, headers)
        except Exception as error:  # whatever a caller passes
            self._count("invalid")
            log.warning("an event was not published: %s", _reason(error))
            return False
        with self._lock:
            if self._closing or self._bytes + record.weight > self._queue_bytes:
                accepted = False
            else:
                accepted = True
                self._queue.append(record)
                self._bytes += record.weight
                if self._thread is None:
                    self._start()
                elif len(self._queue) == 1:
                    self._soon(self._wake.set)
        if not accepted:
            self._count("dropped")
        return accepted

    async def close(self, timeout: float = 10.0) -> bool:
        """As `stop`, without blocking the event loop."""
        return await asyncio.to_thread(self.stop, timeout)

    def stop(self, timeout: float = 10.0) -> bool:
        """Send what is queued, for at most about `timeout` seconds, and end; False if something was dropped."""
        with self._lock:
            self._closing = True
            thread = self._thread
        if thread is None:
            return True
        atexit.unregister(self.stop)
        self._soon(self._wake.set)
        thread.join(timeout)
        if thread.is_alive() and self._sender is not None:
            self._soon(self._sender.cancel)
            thread.join(1.0)
        with self._lock:
            left, self._bytes = len(self._queue), 0
            self._queue.clear()
        if left:
            self._count("dropped", left)
        return not left

    def _start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._run, args=(self._loop,), name="pointsman-publisher", daemon=True
        )
        self._thread.start()
        atexit.register(self.stop, EXIT_SECONDS)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.closing(loop):
            self._sender = loop.create_task(self._send_until_closed())
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(self._sender)

    def _soon(self, call: Callable[[], object]) -> None:
        """Have the thread's loop call something, unless it has ended."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(call)

    async def _send_until_closed(self) -> None:
        pause = FIRST_PAUSE_S
        while self._queue or not self._closing:
            producer = AIOKafkaProducer(
                **self._brokers, enable_idempotence=True, compression_type="lz4", linger_ms=5
            )
            try:
                await producer.start()
                pause = FIRST_PAUSE_S
                await self._send_queued(producer)
            except (KafkaError, OSError) as error:
                log.warning("no events reach Kafka (%s); next try in %.1f s", _reason(error), pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            finally:
                await producer.stop()

    async def _send_queued(self, producer: AIOKafkaProducer) -> None:
        """Send until closed; raises when the producer no longer can, with what is unsent still queued."""
        while True:
            if not self._queue:
                if self._closing:
                    await producer.flush()
                    return
                self._wake.clear()
                if not self._queue:  # something may have come before the clear
                    await self._wake.wait()
                continue
            record = self._queue[0]
            try:
                sent = await producer.send(self._topic, record.value, key=record.key, headers=record.headers)
            except MessageSizeTooLargeError:
                self._count("failed")
            else:
                sent.add_done_callback(self._delivered)
            with self._lock:
                self._queue.popleft()
                self._bytes -= record.weight

    def _delivered(self, sent: "asyncio.Future[Any]") -> None:
        failed = sent.cancelled() or sent.exception() is not None
        self._count("failed" if failed else "ok")

    def _count(self, result: str, events: int = 1) -> None:
        with self._lock:
            self._counts[result] += events
        GATEWAY_EVENTS.labels(self._gateway, result).inc(events)


def from_settings(settings: Settings, gateway: str) -> Publisher:
    """A publisher to the settings' brokers. `gateway`: `litellm`, `http`, ...: in the source and the metric.

    Raises:
        SettingsError: no brokers.
    """
    if not settings.kafka.bootstrap:
        raise SettingsError(["POINTSMAN_KAFKA_BOOTSTRAP is not set: events need a broker"])
    return Publisher(
        connection(settings.kafka),
        f"//{gateway}/{settings.gateway.instance or socket.gethostname()}",
        topic=named(EVENTS, settings.kafka.topic_suffix),
        gateway=gateway,
        queue_bytes=settings.gateway.queue_bytes,
    )


def _reason(error: Exception) -> str:
    """The error's type, and its text where that cannot quote an event: msgspec's names places and bounds."""
    quotable = isinstance(error, msgspec.ValidationError | KafkaError | OSError)
    return f"{type(error).__name__}: {error}" if quotable else type(error).__name__
