"""`pointsman threshold`: what is in force, what is proposed, who decided what, and whether the record is whole."""

import asyncio
import getpass
import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from clickhouse_connect.driver.exceptions import ClickHouseError

from detectors.audited import AUDITED
from detectors.detections.correlation import milliseconds
from detectors.thresholds import DEFAULTS
from schemas.codec import InvalidRecord
from schemas.signatures import link_problem, signed
from schemas.thresholds import ROUTING, ThresholdDecision, ThresholdScope, ThresholdUpdate
from streams import chain
from streams.chain import DecisionRefused, NoAnswer
from streams.commands.brokers import json_option, on_brokers, print_json
from streams.commands.config import config_option, load_settings
from streams.embedded.clickhouse import EngineTaken
from streams.notifiers.text import printable, timestamp
from streams.settings import Kafka, Settings
from streams.store import Store

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def _deciding(function: F) -> F:
    for option in (
        click.option("--reason", required=True, help="Why; kept in the chain."),
        click.option("--actor", default=getpass.getuser, help="Who decides (default: the user of this session)."),
        click.option("--key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
                     help="The actor's key, where feedback.approvers is set."),
        click.option("--dry-run", is_flag=True, help="Show the decision, send nothing."),
        click.option("--wait", default=20.0, show_default=True, help="Seconds to wait for the feedback lane."),
        config_option,
        json_option,
    ):  # fmt: skip
        function = option(function)
    return function


def _scoped(function: Callable[..., None]) -> Callable[..., None]:
    @wraps(function)
    def scoped(router: str, route: str, category: str, tenant: str, **rest: Any) -> None:
        function(scope=ThresholdScope(router_name=router, route=route, category=category, tenant_id=tenant), **rest)

    scoped = click.option("--tenant", default="", help="Its own threshold, stricter than the fleet's.")(scoped)
    for name in ("category", "route", "router"):
        scoped = click.option(f"--{name}", default="", help="Of a decision about routes.")(scoped)
    return scoped


@click.group()
def command() -> None:
    """See and decide about thresholds. The feedback lane carries decisions out; all of them are in one chain."""


# --- to see


@command.command()
@click.argument("parameter", required=False)
@config_option
@json_option
def get(parameter: str | None, path: Path | None, as_json: bool) -> None:
    """Show what is in force, and which proposals are open."""
    latest = on_brokers(path, _latest)
    values = {name: {"value": value, "version": 0, "mode": "shipped"} for name, value in DEFAULTS.items()}
    for link in latest.in_force:
        values[_name(link)] = {"value": link.new_value, "version": link.version, "mode": link.mode}
    if parameter is not None:
        values = {name: shown for name, shown in values.items() if name.split(" ")[0] == parameter}
        if not values:
            raise click.ClickException(f"no threshold {parameter!r}")
    proposed = [link for link in latest.proposed if parameter in (None, link.parameter)]
    if as_json:
        print_json({"in_force": values, "proposed": proposed})
        return
    for name, shown in sorted(values.items()):
        click.echo(f"{printable(name):<40} {shown['value']:<10.6g} version {shown['version']}, {shown['mode']}")
    for link in proposed:
        click.echo("open: " + _line(link))


@command.command()
@click.argument("parameter")
@click.argument("value", type=float)
@click.option("--hours", default=24.0, show_default=True, help="Of history to look at.")
@config_option
@json_option
def diff(parameter: str, value: float, hours: float, path: Path | None, as_json: bool) -> None:
    """Show which verdicts of the last hours another VALUE would have changed, from the history's scores."""
    detectors = {one.parameter: (name, one) for name, one in AUDITED.items() if not one.shifts}
    if parameter not in detectors:
        known = ", ".join(sorted(detectors))
        raise click.ClickException(f"the history has scores on the threshold's scale for {known} only")
    detector, audited = detectors[parameter]
    fleet = [link for link in on_brokers(path, _latest).in_force if not link.scope.tenant_id]
    now_value = {link.parameter: link.new_value for link in fleet}.get(parameter, DEFAULTS[parameter])
    values = {
        "detector": detector, "kind": audited.kind, "stages": list(audited.stages), "old": now_value, "new": value,
        "since": datetime.now(UTC) - timedelta(hours=hours),
    }  # fmt: skip
    rows = _history(path, lambda store: store.query(_DIFF, values)).records()
    (found,) = rows
    shown = {"parameter": parameter, "old_value": now_value, "new_value": value, "hours": hours, **found}
    if as_json:
        print_json(shown)
        return
    click.echo(f"{parameter}: {now_value:g} to {value:g}, over {hours:g} h and {found['scored']} scored requests")
    click.echo(
        f"flagged by {detector}: {found['flagged_before']} then, {found['flagged_after']} with it;"
        f" {found['principals']} principals of {found['tenants']} tenants see a change"
    )


# `scores` may be another kind's of the same detector: those requests are left out, as audits do.
_DIFF = """
SELECT
    count() AS scored,
    countIf(score >= {old:Float64}) AS flagged_before,
    countIf(score >= {new:Float64}) AS flagged_after,
    uniqExactIf(principal_hash, (score >= {old:Float64}) != (score >= {new:Float64})) AS principals,
    uniqExactIf(tenant_id, (score >= {old:Float64}) != (score >= {new:Float64})) AS tenants
FROM
(
    SELECT scores[{detector:String}] AS score, principal_hash, tenant_id, verdict_id
    FROM verdicts FINAL
    WHERE event_time >= {since:DateTime64(3, 'UTC')} AND mapContains(scores, {detector:String})
)
WHERE verdict_id NOT IN
(
    SELECT verdict_id FROM reasons FINAL
    WHERE event_time >= {since:DateTime64(3, 'UTC')} AND detector = {detector:String}
        AND (kind != {kind:String} OR NOT has({stages:Array(String)}, stage))
)
"""


@command.command()
@click.argument("parameter", required=False)
@click.option("--topic", "from_topic", is_flag=True, help="From the topic, which has the latest of each only.")
@config_option
@json_option
def history(parameter: str | None, from_topic: bool, path: Path | None, as_json: bool) -> None:
    """Show all that ever happened to thresholds, oldest first."""
    links = list(on_brokers(path, _latest).links) if from_topic else _history(path, chain.whole)
    links = [link for link in links if parameter in (None, link.parameter)]
    if as_json:
        print_json(links)
        return
    for link in links:
        click.echo(_line(link))
    if not links:
        click.echo("nothing was ever moved")


@command.command()
@click.option("--topic", "from_topic", is_flag=True, help="Only the links that the topic has, each by itself.")
@config_option
@json_option
def verify(from_topic: bool, path: Path | None, as_json: bool) -> None:
    """Check the chain: nothing edited, left out or added, all of it signed, history and topic agree."""
    keys = chain.update_keys(load_settings(path).feedback)
    latest = on_brokers(path, _latest)
    if from_topic:
        checked = len(latest.links)
        problems = [problem for link in latest.links if (problem := link_problem(link, keys))]
    else:
        links = _history(path, chain.whole)
        checked, problems = len(links), chain.problems(links, latest, keys)
    head = latest.links[-1] if latest.links else None
    if as_json:
        print_json({
            "checked": checked, "problems": problems, "signatures": keys is not None,
            "head": {"version": head.version, "hash": head.hash} if head else None,
        })  # fmt: skip
    else:
        for problem in problems:
            click.echo(problem)
        signatures = "" if keys else " (signatures not looked at: feedback.key is not set)"
        click.echo(f"{checked} links checked, {len(problems)} problems{signatures}")
        if head:
            click.echo(f"head: version {head.version}, {head.hash}")
    if problems:
        raise SystemExit(1)


@command.command()
@config_option
@json_option
def keys(path: Path | None, as_json: bool) -> None:
    """Show the keys that routers verify with, by id: of all that feedback.key signs, they fit links only."""
    found = chain.update_keys(load_settings(path).feedback)
    if found is None:
        raise click.ClickException("feedback.key is not set")
    if as_json:
        print_json({key_id: made.hex() for key_id, made in found.items()})
        return
    for key_id, made in found.items():
        click.echo(f"{key_id} {made.hex()}")


# --- to decide


@command.command()
@click.argument("parameter")
@click.argument("value", type=float)
@click.option("--expires", default="", metavar="TIMESPAN", help="After which the former value comes back, as 12h.")
@_scoped
@_deciding
def propose(parameter: str, value: float, expires: str, scope: ThresholdScope, **how: Any) -> None:
    """Propose a value; it needs approval (of two where it is beyond the threshold's ceiling)."""
    try:
        expires_at = datetime.now(UTC) + timedelta(milliseconds=milliseconds(expires)) if expires else None
    except ValueError as error:
        raise click.UsageError(f"--expires: {error}") from error
    _decide("propose", how, parameter=parameter, value=value, expires_at=expires_at, scope=scope)


@command.command()
@click.argument("version", type=click.IntRange(min=1))
@_deciding
def approve(version: int, **how: Any) -> None:
    """Approve the open proposal of that VERSION."""
    _decide("approve", how, version=version)


@command.command()
@click.argument("version", type=click.IntRange(min=1))
@_deciding
def reject(version: int, **how: Any) -> None:
    """Reject the open proposal of that VERSION; evidence does not propose the same again for a day."""
    _decide("reject", how, version=version)


@command.command()
@click.argument("parameter")
@_scoped
@_deciding
def pin(parameter: str, scope: ThresholdScope, **how: Any) -> None:
    """Hold a threshold at what it is: no evidence moves it until `unpin`."""
    _decide("pin", how, parameter=parameter, scope=scope)


@command.command()
@click.argument("parameter")
@_scoped
@_deciding
def unpin(parameter: str, scope: ThresholdScope, **how: Any) -> None:
    """Let go of a threshold that is pinned, overridden or rolled back: the evidence's value is in force again."""
    _decide("unpin", how, parameter=parameter, scope=scope)


@command.command()
@_deciding
def freeze(**how: Any) -> None:
    """Stop all automatic moves, of all thresholds."""
    _decide("freeze", how)


@command.command()
@_deciding
def unfreeze(**how: Any) -> None:
    """Let automatic moves go on."""
    _decide("unfreeze", how)


@command.command()
@click.argument("parameter", required=False, default="")
@click.option("--to", "version", type=click.IntRange(min=1), required=True, help="The version to go back to.")
@_scoped
@_deciding
def rollback(parameter: str, version: int, scope: ThresholdScope, **how: Any) -> None:
    """Take one threshold, or all, back to what was in force at a version, and hold it there until `unpin`."""
    _decide("rollback", how, parameter=parameter, version=version, scope=scope)


def _decide(action: Any, how: dict[str, Any], **fields: Any) -> None:
    decision = _checked(chain.new_decision(action=action, actor=how["actor"], reason=how["reason"], **fields))
    if how["key_file"]:
        decision = signed(decision, how["key_file"].read_text().strip().encode(), decision.actor)
    if how["dry_run"]:
        print_json({"dry_run": True, "decision": decision})
        return
    try:
        links = on_brokers(how["path"], lambda kafka: chain.decide(kafka, decision, how["wait"]))
    except DecisionRefused as error:
        raise click.ClickException(f"refused: {printable(str(error))}") from error
    except NoAnswer as error:
        raise click.ClickException(str(error)) from error
    if how["as_json"]:
        print_json({"decision_id": decision.decision_id, "links": links})
        return
    for link in links:
        click.echo(_line(link))


def _checked(decision: ThresholdDecision) -> ThresholdDecision:
    """The decision, if the lane can read it and knows what it is about.

    Raises:
        click.UsageError: it would be a dead letter.
    """
    if decision.value is not None and not math.isfinite(decision.value):
        raise click.UsageError("a threshold is a number")
    if decision.parameter and decision.parameter not in (*DEFAULTS, *ROUTING):
        raise click.UsageError(f"no threshold {decision.parameter!r}: `pointsman threshold get` lists them")
    try:
        return msgspec.json.decode(msgspec.json.encode(decision), type=ThresholdDecision)
    except msgspec.ValidationError as error:
        raise click.UsageError(str(error)) from error


# --- routes


@command.command()
@click.option("--days", default=7.0, show_default=True, help="Of history that costs and volumes are taken from.")
@click.option("--guardrail-usd", type=float, help="What a guardrail costs a request.")
@click.option("--submit", is_flag=True, help="Propose what is found, each to be approved.")
@_deciding
def routes(days: float, guardrail_usd: float | None, submit: bool, **how: Any) -> None:
    """Show for which category on which route labels ask for a guardrail or a stronger route, and its cost a day."""
    from detectors.routing import Economy
    from streams.lanes.feedback import rules

    path = how["path"]
    allowed = rules(load_settings(path))
    feedback = on_brokers(path, lambda kafka: chain.state(kafka, allowed))
    since = {"since": datetime.now(UTC) - timedelta(days=days)}
    rows = _history(path, lambda store: store.query(_ECONOMY, since)).records()
    found = []
    for router, routing in sorted(feedback.routing.items()):
        ours = [row for row in rows if row["router_name"] == router]
        economy = Economy(
            route_usd=_usd_of_routes(ours),
            guardrail_usd=guardrail_usd,
            requests_per_day={(row["route"], row["category"]): row["requests"] / days for row in ours},
        )
        found += [(router, proposal) for proposal in routing.proposals(economy)]
    if how["as_json"] and not submit:
        print_json([{"router_name": router, **msgspec.to_builtins(proposal)} for router, proposal in found])
        return
    for router, p in found:
        what = "a guardrail" if p.kind == "guardrail" else f"the route {printable(p.to_route)}"
        cost = "cost not known" if p.cost_usd_per_day is None else f"{p.cost_usd_per_day:.2f} USD a day"
        evidence = f"in {p.n_labels} labels of {p.n_principals} principals"
        said = f"{p.cause} {p.seen:.2%}, allowed {p.allowed:.2%}, {evidence}: {what}, {cost}"
        click.echo(f"{printable(router)} {printable(p.route)} {printable(p.category)}: {said}")
        if submit:
            ladder = allowed.ladder
            _decide(
                "propose", {**how, "reason": f"{how['reason']}; {said}"[:1024]}, parameter=f"routing.{p.kind}",
                value=1.0 if p.kind == "guardrail" else float(ladder.index(p.to_route)),
                scope=ThresholdScope(router_name=router, route=p.route, category=p.category),
                cost_usd_per_day=p.cost_usd_per_day,
            )  # fmt: skip
    if not found:
        click.echo("no labels ask for a change of a route")


def _usd_of_routes(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean cost of a request of each route, over all categories; none where no cost is known."""
    usd: dict[str, float] = {}
    for route in {row["route"] for row in rows}:
        priced = [row for row in rows if row["route"] == route and row["priced"]]
        if priced:
            usd[route] = sum(row["usd"] for row in priced) / sum(row["priced"] for row in priced)
    return usd


_ECONOMY = """
SELECT router_name, selected_model AS route, category, count() AS requests,
    countIf(has_usd) AS priced, sum(sum_usd) AS usd
FROM
(
    SELECT r.request_id AS request_id, r.principal_hash AS principal_hash, any(r.router_name) AS router_name,
        any(r.selected_model) AS selected_model, any(r.category) AS category,
        sum(o.cost_usd) AS sum_usd, max(o.has_cost_usd) AS has_usd
    FROM (SELECT * FROM routes FINAL WHERE event_time >= {since:DateTime64(3, 'UTC')}) AS r
    LEFT JOIN
    (
        SELECT request_id, principal_hash, cost_usd, has_cost_usd FROM outcomes FINAL
        WHERE event_time >= {since:DateTime64(3, 'UTC')}
    ) AS o USING (request_id, principal_hash)
    GROUP BY request_id, principal_hash
)
GROUP BY router_name, route, category
ORDER BY router_name, route, category
"""


# --- what they share


async def _latest(kafka: Kafka) -> chain.Latest:
    try:
        return await chain.latest(kafka)
    except InvalidRecord as error:
        raise click.ClickException(f"the topic of thresholds: {error}") from error


def _history(path: Path | None, work: Callable[[Store], Awaitable[T]]) -> T:
    settings: Settings = load_settings(path)

    async def run() -> T:
        async with Store.of(settings.clickhouse) as store:
            return await work(store)

    try:
        return asyncio.run(run())
    except (ClickHouseError, EngineTaken, ValueError) as error:
        raise click.ClickException(f"history: {error}") from error


def _name(link: ThresholdUpdate) -> str:
    scope = link.scope
    places = [place for place in (scope.router_name, scope.route, scope.category, scope.tenant_id) if place]
    return " ".join([link.parameter, *places])


def _line(link: ThresholdUpdate) -> str:
    old = "-" if link.old_value is None else f"{link.old_value:g}"
    facts = [f"{link.version:>5} {timestamp(link.time)} {printable(_name(link))}: {old} to {link.new_value:g}"]
    facts.append(f"{link.mode}, {link.cause}, by {printable(link.actor)}")
    if link.approver:
        facts.append(f"{'rejected' if link.mode == 'rejected' else 'approved'} by {printable(link.approver)}")
    if link.n_trusted:
        facts.append(f"{link.n_trusted} labels of {link.n_principals} principals, e-value {link.e_value:.3g}")
    if link.cost_usd_per_day is not None:
        facts.append(f"{link.cost_usd_per_day:.2f} USD a day")
    if link.expires_at is not None:
        facts.append(f"until {timestamp(link.expires_at)}")
    return "; ".join([*facts, printable(link.reason)])
