"""What differs between two replays, or between a replay and what was said live."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from streams.past.results import LIVE, Fired, Flips, find_run, fired, flips
from streams.past.run import Run
from streams.store import Store

# The times of what was said live are when its findings reached the fleet lane; a replay's, when they were made.
LATENCY_S = 5.0

What = Literal["new", "lost", "earlier", "later"]


class Change(msgspec.Struct, kw_only=True):
    """One identity that only one side alerted on, or that they alerted on at different times."""

    what: What
    alertname: str
    severity: str
    labels: dict[str, str]
    fingerprint: str
    fired_a: datetime | None
    fired_b: datetime | None
    seconds: float | None = None  # from a to b


class Difference(msgspec.Struct, kw_only=True):
    """Of `b` against `a`. `unlike`: what besides thresholds and catalogue sets the two runs apart."""

    a: str
    b: str
    begins: datetime
    ends: datetime
    changes: list[Change]
    same: int  # identities that fired at the same time; against `live`, within its latency
    verdicts: list[Flips]
    pins: dict[str, tuple[str, str]]  # what the runs were pinned to, where that differs
    unlike: list[str]


async def difference(store: Store, a: str, b: str) -> Difference:
    """Compare two runs by the beginnings of their ids; one of them may be `live`.

    Raises:
        UnknownRun: a name that is no run's.
        ValueError: both are `live`, or their windows have nothing in common.
    """
    runs = {name: await find_run(store, name) for name in (a, b) if name != LIVE}
    if not runs:
        raise ValueError("one of the two must be a replay")
    begins = max(run.begins for run in runs.values())
    ends = min(run.ends for run in runs.values())
    if begins >= ends:
        raise ValueError("the two replays have no time in common")
    ids = [runs[name].run_id if name in runs else LIVE for name in (a, b)]
    sides = [await fired(store, name, begins, ends) for name in ids]
    found, same = changes(sides[0], sides[1], LATENCY_S if LIVE in ids else 0.0)
    pins, unlike = _pins(list(runs.values())) if len(runs) == 2 else ({}, [])
    return Difference(
        a=ids[0], b=ids[1], begins=begins, ends=ends, changes=found, same=same,
        verdicts=await flips(store, ids[0], ids[1], begins, ends), pins=pins, unlike=unlike,
    )  # fmt: skip


def changes(a: Sequence[Fired], b: Sequence[Fired], within_s: float = 0.0) -> tuple[list[Change], int]:
    """New, lost, earlier and later identities, by time; and how many are the same, or no further apart."""
    before, after = ({one.fingerprint: one for one in side} for side in (a, b))
    found = [
        change
        for identity in before.keys() | after.keys()
        if (change := _change(before.get(identity), after.get(identity), within_s))
    ]
    found.sort(key=lambda change: (change.fired_b or change.fired_a, change.fingerprint))
    return found, len(before.keys() | after.keys()) - len(found)


def _change(old: Fired | None, new: Fired | None, within_s: float) -> Change | None:
    if (shown := new or old) is None:
        raise AssertionError("it is of one side at least")
    seconds = (new.fired_at - old.fired_at).total_seconds() if old and new else None
    if seconds is not None and abs(seconds) <= within_s:
        return None
    what: What = ("new" if new else "lost") if seconds is None else "earlier" if seconds < 0 else "later"
    return Change(
        what=what, alertname=shown.alertname, severity=shown.severity, labels=shown.labels,
        fingerprint=shown.fingerprint, fired_a=old.fired_at if old else None,
        fired_b=new.fired_at if new else None, seconds=seconds,
    )  # fmt: skip


def _pins(runs: Sequence[Run]) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """What differs in the pins of two runs, flat; and which of it makes the comparison one of other things too."""
    a, b = (_flat(msgspec.json.decode(run.pins)) for run in runs)
    differ = {
        name: (a.get(name, ""), b.get(name, ""))
        for name in sorted(a.keys() | b.keys())
        if a.get(name) != b.get(name)
    }
    meant = ("thresholds", "catalogue", "alerting")
    return differ, [name for name in differ if not name.startswith(meant)]


def _flat(value: dict[str, object]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, part in value.items():
        if isinstance(part, dict):
            flat |= {f"{name}.{inner}": str(one) for inner, one in part.items()}
        else:
            flat[name] = str(part)
    return flat
