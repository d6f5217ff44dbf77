"""Decide: propose, approve, reject, pin, freeze, roll back. The feedback lane carries it out, or says why not."""

import getpass
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec

from detectors.detections.correlation import milliseconds
from detectors.thresholds import DEFAULTS
from schemas.signatures import signed
from schemas.thresholds import ROUTING, ThresholdDecision, ThresholdScope
from streams import chain
from streams.chain import DecisionRefused, NoAnswer
from streams.commands.brokers import json_option, on_brokers, print_json
from streams.commands.config import config_option
from streams.commands.threshold.links import line_of
from streams.notifiers.text import printable


class How(NamedTuple):
    """Who decides and why, and what becomes of it."""

    reason: str
    actor: str
    key_file: Path | None
    dry_run: bool
    wait: float
    path: Path | None
    as_json: bool


def deciding(reason_required: bool = True) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Options of a command that decides; it gets them as `how`."""
    needed: dict[str, Any] = {"required": True} if reason_required else {"default": ""}
    options = (
        click.option("--reason", help="Why; kept in the chain.", **needed),
        click.option("--actor", default=getpass.getuser, help="Who decides (default: the user of this session)."),
        click.option("--key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
                     help="The actor's key, where feedback.approvers is set."),
        click.option("--dry-run", is_flag=True, help="Show the decision, send nothing."),
        click.option("--wait", default=20.0, show_default=True, help="Seconds to wait for the feedback lane."),
        config_option,
        json_option,
    )  # fmt: skip

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def packed(**given: Any) -> None:
            function(how=How(**{name: given.pop(name) for name in How._fields}), **given)

        for option in options:
            packed = option(packed)
        return packed

    return decorate


def _scoped(function: Callable[..., None]) -> Callable[..., None]:
    @wraps(function)
    def scoped(router: str, route: str, category: str, tenant: str, **rest: Any) -> None:
        function(scope=ThresholdScope(router_name=router, route=route, category=category, tenant_id=tenant), **rest)

    scoped = click.option("--tenant", default="", help="Its own threshold, stricter than the fleet's.")(scoped)
    for name in ("category", "route", "router"):
        scoped = click.option(f"--{name}", default="", help="Of a decision about routes.")(scoped)
    return scoped


def decide(action: Any, how: How, **fields: Any) -> None:
    """Have the feedback lane carry a decision out, and print the links that it makes of it."""
    try:
        done = carried_out(action, how, **fields)
    except DecisionRefused as error:
        raise click.ClickException(f"refused: {printable(str(error))}") from error
    if how.as_json or how.dry_run:
        print_json(done)
        return
    for link in done["links"]:
        click.echo(line_of(link))


def carried_out(action: Any, how: How, **fields: Any) -> dict[str, Any]:
    """Have the feedback lane carry a decision out: its id and links, or the decision itself where nothing is sent.

    Raises:
        DecisionRefused: the lane does not.
    """
    decision = _checked(chain.new_decision(action=action, actor=how.actor, reason=how.reason, **fields))
    if how.key_file:
        decision = signed(decision, how.key_file.read_text().strip().encode(), decision.actor)
    if how.dry_run:
        return {"dry_run": True, "decision": decision}
    try:
        links = on_brokers(how.path, lambda kafka: chain.decide(kafka, decision, how.wait))
    except NoAnswer as error:
        raise click.ClickException(str(error)) from error
    return {"decision_id": decision.decision_id, "links": links}


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


@click.command()
@click.argument("parameter")
@click.argument("value", type=float)
@click.option("--expires", default="", metavar="TIMESPAN", help="After which the former value comes back, as 12h.")
@_scoped
@deciding()
def propose(parameter: str, value: float, expires: str, scope: ThresholdScope, how: How) -> None:
    """Propose a value; it needs approval (of two where it is beyond the threshold's ceiling)."""
    try:
        expires_at = datetime.now(UTC) + timedelta(milliseconds=milliseconds(expires)) if expires else None
    except ValueError as error:
        raise click.UsageError(f"--expires: {error}") from error
    decide("propose", how, parameter=parameter, value=value, expires_at=expires_at, scope=scope)


@click.command()
@click.argument("version", type=click.IntRange(min=1))
@deciding()
def approve(version: int, how: How) -> None:
    """Approve the open proposal of that VERSION."""
    decide("approve", how, version=version)


@click.command()
@click.argument("version", type=click.IntRange(min=1))
@deciding()
def reject(version: int, how: How) -> None:
    """Reject the open proposal of that VERSION; evidence does not propose the same again for a day."""
    decide("reject", how, version=version)


@click.command()
@click.argument("parameter")
@_scoped
@deciding()
def pin(parameter: str, scope: ThresholdScope, how: How) -> None:
    """Hold a threshold at what it is: no evidence moves it until `unpin`."""
    decide("pin", how, parameter=parameter, scope=scope)


@click.command()
@click.argument("parameter")
@_scoped
@deciding()
def unpin(parameter: str, scope: ThresholdScope, how: How) -> None:
    """Let go of a threshold that is pinned, overridden or rolled back: the evidence's value is in force again."""
    decide("unpin", how, parameter=parameter, scope=scope)


@click.command()
@deciding()
def freeze(how: How) -> None:
    """Stop all automatic moves, of all thresholds."""
    decide("freeze", how)


@click.command()
@deciding()
def unfreeze(how: How) -> None:
    """Let automatic moves go on."""
    decide("unfreeze", how)


@click.command()
@click.argument("parameter", required=False, default="")
@click.option("--to", "version", type=click.IntRange(min=1), required=True, help="The version to go back to.")
@_scoped
@deciding()
def rollback(parameter: str, version: int, scope: ThresholdScope, how: How) -> None:
    """Take one threshold, or all, back to what was in force at a version, and hold it there until `unpin`."""
    decide("rollback", how, parameter=parameter, version=version, scope=scope)
