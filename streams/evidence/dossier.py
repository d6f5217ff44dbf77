"""Everything that the history has on one alert: words of ours, numbers, hashes and names; no text of a prompt."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from detectors.thresholds import DEFAULTS, in_force
from schemas.thresholds import ThresholdUpdate
from streams.store import Store

Row = dict[str, Any]
MOST_FINDINGS = 1_000
_CLOCKS_OFF = timedelta(days=1)
_LANE_BEHIND = timedelta(days=7)  # as long as a topic keeps a finding that the fleet lane has not read
_SPAN = "event_time >= {earliest:DateTime64(3, 'UTC')} AND event_time < {latest:DateTime64(3, 'UTC')}"

# By the name of the dossier's part. `{keys}` are the requests of the alert's findings.
STATES = "SELECT * FROM alerts FINAL WHERE startsWith(alert_id, {alert:String}) ORDER BY alert_id, sequence"
# An alert's times are when the fleet lane read its findings; theirs are when the detect lane judged: earlier, and
# much earlier where a lane had to catch up. So they begin with the first that the alert names.
FINDINGS = """SELECT * FROM findings FINAL
WHERE {labels} AND time <= {{ends:DateTime64(3, 'UTC')}} AND time >= (
    SELECT if(count() = 0, {{begins:DateTime64(3, 'UTC')}}, least(min(time), {{begins:DateTime64(3, 'UTC')}}))
    FROM findings
    WHERE finding_id IN {{named:Array(String)}} AND time >= {{earliest:DateTime64(3, 'UTC')}}
)
ORDER BY time, finding_id LIMIT {{most:UInt32}}"""
LINKS = """SELECT link FROM threshold_links FINAL
WHERE time <= {ends:DateTime64(3, 'UTC')} ORDER BY version, link"""
_OF_REQUESTS = """SELECT * FROM {table} FINAL
WHERE {span} AND (tenant_id, principal_hash, request_id) IN {{keys:Array(Tuple(String, String, String))}}
ORDER BY {order}"""
OF_REQUESTS = {
    "verdicts": _OF_REQUESTS.format(table="verdicts", span=_SPAN, order="event_time, verdict_id"),
    "reasons": _OF_REQUESTS.format(table="reasons", span=_SPAN, order="event_time, verdict_id, number"),
    "requests": _OF_REQUESTS.format(table="requests", span=_SPAN, order="event_time, event_id"),
    "routes": _OF_REQUESTS.format(table="routes", span=_SPAN, order="event_time, event_id"),
    "outcomes": _OF_REQUESTS.format(table="outcomes", span=_SPAN, order="event_time, event_id"),
}


class UnknownAlert(LookupError):
    """No alert of the history has that id, or several ids begin with it."""


class Dossier(msgspec.Struct, kw_only=True):
    """Rows by their table's columns. `queries`: the text of each that was run, with its parameters."""

    alert: Row  # its last state
    states: list[Row]
    findings: list[Row]
    verdicts: list[Row]
    reasons: list[Row]
    requests: list[Row]
    routes: list[Row]
    outcomes: list[Row]
    threshold_updates: list[ThresholdUpdate]  # up to the alert's last finding, as they were signed
    thresholds: dict[str, float]  # in force at its last finding; a tenant's own as "parameter tenant"
    versions: dict[str, Any]
    queries: dict[str, dict[str, Any]]


class _Asker:
    """Runs queries and keeps their texts."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.queries: dict[str, dict[str, Any]] = {}

    async def rows(self, name: str, sql: str, parameters: Mapping[str, Any]) -> list[Row]:
        self.queries[name] = {"sql": sql, "parameters": dict(parameters)}
        return (await self._store.query(sql, parameters)).records()


async def gather(store: Store, alert_id: str) -> Dossier:
    """Gather what there is on the alert whose id begins with `alert_id`.

    Raises:
        UnknownAlert: there is none, or more than one.
    """
    asker = _Asker(store)
    states = await asker.rows("states", STATES, {"alert": alert_id})
    ids = {state["alert_id"] for state in states}
    if len(ids) != 1:
        raise UnknownAlert(
            f"alerts that begin with {alert_id!r}: {', '.join(sorted(ids)[:5])}{', ...' if len(ids) > 5 else ''}"
            if ids
            else f"no alert {alert_id!r} in the history"
        )
    alert = states[-1]
    span = {"begins": alert["starts_at"], "ends": alert["last_seen"]}
    labels, values = _labels(alert["labels"])
    named = {"named": alert["finding_ids"], "earliest": span["begins"] - _LANE_BEHIND}
    findings = await asker.rows(
        "findings", FINDINGS.format(labels=labels), {**values, **span, **named, "most": MOST_FINDINGS}
    )
    keys = sorted({(row["tenant_id"], row["principal_hash"], row["request_id"]) for row in findings})
    begins = min([span["begins"], *(row["time"] for row in findings)])
    around = {"earliest": begins - _CLOCKS_OFF, "latest": span["ends"] + _CLOCKS_OFF}
    of_requests = {
        name: await asker.rows(name, sql, {**around, "keys": keys}) if keys else []
        for name, sql in OF_REQUESTS.items()
    }
    links = await asker.rows("threshold_updates", LINKS, {"ends": span["ends"]})
    updates = [msgspec.json.decode(row["link"], type=ThresholdUpdate) for row in links]
    return Dossier(
        alert=alert, states=states, findings=findings, **of_requests, threshold_updates=updates,
        thresholds=_thresholds(updates, {tenant for tenant, _, _ in keys}, span["ends"]),
        versions=_versions(alert, findings, of_requests), queries=asker.queries,
    )  # fmt: skip


def _thresholds(updates: Sequence[ThresholdUpdate], tenants: Collection[str], now: datetime) -> dict[str, float]:
    """The fleet's thresholds and (`parameter tenant`) these tenants' own."""
    judged_by = in_force(updates, now)
    values = {name: judged_by[name] for name in DEFAULTS}
    own = {f"{name} {tenant}": judged_by.of(name, tenant) for name, tenant in judged_by.own if tenant in tenants}
    return values | own


def _labels(labels: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """A condition that findings of this identity fulfil, with its parameters."""
    parameters: dict[str, str] = {}
    parts = [f"length(labels) = {len(labels)}"]
    for number, (name, value) in enumerate(sorted(labels.items())):
        parameters |= {f"name{number}": name, f"value{number}": value}
        parts.append(f"labels[{{name{number}:String}}] = {{value{number}:String}}")
    return " AND ".join(parts), parameters


def _versions(alert: Row, findings: Sequence[Row], of_requests: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    def different(rows: Sequence[Row], *columns: str) -> list[str]:
        return sorted({" ".join(str(row[column]) for column in columns) for row in rows})

    verdicts = of_requests["verdicts"]
    return {
        "detectors": different([*findings, *of_requests["reasons"]], "detector", "detector_version"),
        "catalogue": sorted({row["catalogue_version"] for row in (*findings, *verdicts)}),
        "thresholds": sorted(
            {row["threshold_version"] for row in findings} | {row["thresholds_version"] for row in verdicts}
        ),
        "routers": different(of_requests["routes"], "router_name", "router_version"),
        "gateways": different(of_requests["requests"], "gateway_name", "gateway_version"),
        "gathered_at": datetime.now(UTC),
        "last_state": alert["sequence"],
    }
