"""Small makers of events and records for tests: valid unless told otherwise."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from schemas.codec import encode
from schemas.events import AnyEvent, Outcome, Request, Route
from schemas.topics import EVENTS
from streams.replay import FileRecord

NOON_MS = 1_790_000_000_000  # an instant that all tests agree on


def at(time_ms: int) -> datetime:
    """Milliseconds since 1970 as a time with zone."""
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def request(request_id: str = "r1", principal: str = "p1", time_ms: int = NOON_MS, **fields: Any) -> Request:
    """A request event."""
    defaults: dict[str, Any] = {
        "event_id": f"{request_id}-q", "event_time": at(time_ms), "request_id": request_id, "tenant_id": "t1",
        "principal_hash": principal, "prompt_text": "What is the capital of France?", "prompt_chars": 30,
    }  # fmt: skip
    return Request(**{**defaults, **fields})


def route(request_id: str = "r1", principal: str = "p1", time_ms: int = NOON_MS, **fields: Any) -> Route:
    """A route event."""
    defaults: dict[str, Any] = {
        "event_id": f"{request_id}-r", "event_time": at(time_ms), "request_id": request_id, "tenant_id": "t1",
        "principal_hash": principal, "selected_model": "small", "router_name": "main", "router_version": "1",
        "tier": "SIMPLE", "tier_rank": 0, "difficulty_score": 0.2, "cost_estimate_usd": 0.001,
    }  # fmt: skip
    return Route(**{**defaults, **fields})


def outcome(request_id: str = "r1", principal: str = "p1", time_ms: int = NOON_MS, **fields: Any) -> Outcome:
    """An outcome event."""
    defaults: dict[str, Any] = {
        "event_id": f"{request_id}-o", "event_time": at(time_ms), "request_id": request_id, "tenant_id": "t1",
        "principal_hash": principal, "cost_usd": 0.001,
    }  # fmt: skip
    return Outcome(**{**defaults, **fields})


def record(event: AnyEvent | bytes, offset: int = 0, time_ms: int = NOON_MS, **fields: Any) -> FileRecord:
    """An event (or raw bytes) as a record of the events topic."""
    value = event if isinstance(event, bytes) else encode(event)
    key = b"" if isinstance(event, bytes) else event.principal_hash.encode()
    return FileRecord(EVENTS.name, offset, time_ms, value, key, **fields)


def records(events: Iterable[AnyEvent | bytes], step_ms: int = 10) -> list[FileRecord]:
    """Events as successive records, `step_ms` of broker time apart."""
    return [record(event, i, NOON_MS + i * step_ms) for i, event in enumerate(events)]
