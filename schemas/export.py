"""JSON Schema of every record, made from the code, and whether a change of it can still read old records."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from schemas.alerts import Alert
from schemas.audits import AuditLabel, AuditTicket, UnsafeReport
from schemas.checkpoints import Marker
from schemas.deadletters import DeadLetter
from schemas.events import Event, Outcome, Request, Route
from schemas.naming import annotations
from schemas.suppressions import Suppression
from schemas.thresholds import ThresholdDecision, ThresholdUpdate
from schemas.triggers import Trigger
from schemas.verdicts import Finding, Verdict

FOLDER = Path(__file__).parent / "json"

RECORDS: dict[str, type[msgspec.Struct]] = {
    "request.v1": Request,
    "route.v1": Route,
    "outcome.v1": Outcome,
    "verdict.v1": Verdict,
    "finding.v1": Finding,
    "alert.v1": Alert,
    "audit-ticket.v1": AuditTicket,
    "audit-label.v1": AuditLabel,
    "unsafe-report.v1": UnsafeReport,
    "threshold-update.v1": ThresholdUpdate,
    "threshold-decision.v1": ThresholdDecision,
    "trigger.v1": Trigger,
    "suppression.v1": Suppression,
    "dead-letter.v1": DeadLetter,
    "marker.v1": Marker,
}

# What says nothing about which records are valid.
_REMARKS = frozenset({"title", "description", "default", "$id", "$schema", "$defs", "x-otel", "x-litellm"})


def json_schema(name: str) -> dict[str, Any]:
    """The schema of one of `RECORDS` (draft 2020-12); events' properties say what they are called elsewhere."""
    record = RECORDS[name]
    schema = msgspec.json.schema(record)
    definitions = schema["$defs"]
    if issubclass(record, Event):
        for field, body in definitions[record.__name__]["properties"].items():
            body.update(annotations(field))
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:pointsman:{name}", **schema}
    exported: dict[str, Any] = json.loads(json.dumps(schema))
    return exported


def dump(schema: dict[str, Any]) -> str:
    """As it is committed."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def read(name: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    """The committed schema, or None."""
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return schema


def breaks(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Each field in which a reader of `new` may refuse, or lose, what was written by `old`.

    New optional fields and more values of an enumeration are fine; anything else is named.
    """
    return list(_compare(old, new, old.get("$defs", {}), new.get("$defs", {}), "$", frozenset()))


def _compare(
    old: Any, new: Any, old_defs: dict[str, Any], new_defs: dict[str, Any], path: str, seen: frozenset[str]
) -> Iterator[str]:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if old != new:
            yield f"{path}: {json.dumps(old)} became {json.dumps(new)}"
        return
    if "$ref" in old and old.get("$ref") == new.get("$ref"):
        target = old["$ref"].removeprefix("#/$defs/")
        if target not in seen:
            yield from _compare(old_defs[target], new_defs[target], old_defs, new_defs, path, seen | {target})
        return
    for name in sorted((old.keys() | new.keys()) - _REMARKS):
        before, after = old.get(name), new.get(name)
        if name == "properties":
            after = after or {}
            for field, body in (before or {}).items():
                if field not in after:
                    yield f"{path}.{field}: removed"
                else:
                    yield from _compare(body, after[field], old_defs, new_defs, f"{path}.{field}", seen)
        elif name == "required":
            for field in sorted(set(before or []) ^ set(after or [])):
                yield f"{path}.{field}: {'is now required' if field in (after or []) else 'is no longer required'}"
        elif name == "enum":
            if before is None or after is None or not set(before) <= set(after):
                yield f"{path}: allowed values {json.dumps(before)} became {json.dumps(after)}"
        elif name == "anyOf" and before and after and len(before) == len(after):
            for one, other in zip(before, after, strict=True):
                yield from _compare(one, other, old_defs, new_defs, path, seen)
        elif isinstance(before, dict) and isinstance(after, dict):
            yield from _compare(before, after, old_defs, new_defs, f"{path}[]", seen)
        elif before != after:
            yield f"{path}: {name} {json.dumps(before)} became {json.dumps(after)}"
