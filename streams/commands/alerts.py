"""`pointsman alerts`: what fires, what one alert says and what to do about it, and what nobody is to be told of."""

from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
from rich.console import Console

from detectors.detections import load
from schemas.alerts import Alert
from schemas.codec import InvalidRecord, decode
from schemas.topics import ALERTS, named
from streams.commands.brokers import json_option, on_brokers, print_json
from streams.commands.config import config_option, load_settings
from streams.commands.suppressions import list_suppressions, suppress, unsuppress
from streams.kafka import connection, read_to_end
from streams.notifiers.console import line
from streams.notifiers.text import inert, timestamp
from streams.runbooks import runbook
from streams.settings import Kafka


@click.group()
def command() -> None:
    """List alerts and show one, as the alerts topic has them; suppress what nobody is to be told of."""


for _command in (suppress, unsuppress, list_suppressions):
    command.add_command(_command)


@command.command("ls")
@config_option
@click.option("--all", "resolved_too", is_flag=True, help="Resolved ones too, as far back as the topic goes.")
@click.option("--campaigns", is_flag=True, help="Only those of several principals or steps, with their growth.")
@json_option
def list_alerts(path: Path | None, resolved_too: bool, campaigns: bool, as_json: bool) -> None:
    """List what fires now: the last state of each alert, oldest first."""
    states = on_brokers(path, _states)
    last = {state.alert_id: state for state in states}
    found = [state for state in last.values() if resolved_too or state.status == "firing"]
    found = [state for state in found if state.campaign or not campaigns]
    found.sort(key=lambda state: (state.starts_at, state.alert_id))
    if as_json:
        print_json(found)
        return
    console = Console(soft_wrap=True, highlight=False)
    for state in found:
        console.print(line(state))
        if campaigns:
            for text in _growth([earlier for earlier in states if earlier.alert_id == state.alert_id]):
                click.echo(f"    {text}")
    if not found:
        click.echo("no alerts" if resolved_too else "nothing fires")


@command.command()
@click.argument("identity")
@config_option
@json_option
def show(identity: str, path: Path | None, as_json: bool) -> None:
    """Show the alerts whose alert_id or fingerprint begins with IDENTITY: every published state, oldest first."""
    states = [
        state
        for state in on_brokers(path, _states)
        if state.alert_id.startswith(identity) or state.fingerprint.startswith(identity)
    ]
    if not states:
        raise click.ClickException(f"no alert {identity!r} in the topic")
    if as_json:
        print_json(states)
        return
    folder = load_settings(path).fleet.detections
    detections = load(Path(folder) if folder else None)
    console = Console(soft_wrap=True, highlight=False)
    for state in states:
        console.print(line(state))
    for last in {state.alert_id: state for state in states}.values():
        click.echo("")
        for name, value in _facts(last).items():
            click.echo(f"{name:<18} {value}")
        for text in runbook(msgspec.structs.asdict(last), detections):
            click.echo(text)


def _facts(alert: Alert) -> dict[str, str]:
    """What is known of an alert, inert, without what is empty."""
    facts = {
        "alert": alert.alert_id,
        "fingerprint": alert.fingerprint,
        "summary": alert.summary,
        "detector": f"{alert.detector} {alert.detector_version}",
        "score": f"{alert.score:.6g}, threshold {alert.threshold:.6g}",
        "direction": alert.direction,
        "suppressed by": inert(alert.suppressed_by),
        "inhibited by": inert(alert.inhibited_by),
        "window": inert(alert.window),
        "trigger": inert(alert.trigger_id),
        "first event": timestamp(alert.first_event_time) if alert.first_event_time else "",
        "first request": inert(alert.first_request_id),
        "requests": " ".join(map(inert, alert.request_ids)),
        "findings": " ".join(map(inert, alert.finding_ids)),
        "MITRE ATLAS": " ".join(alert.mitre_atlas),
        "OWASP": " ".join(alert.owasp),
        "runbook": alert.runbook_url,
        **{name: " ".join(map(inert, values)) for name, values in alert.attributes.items()},
    }
    return {name: value for name, value in facts.items() if value}


def _growth(states: list[Alert]) -> Iterator[str]:
    """What was published of a campaign, a line a state."""
    for state in states:
        cost = "" if state.est_cost_usd is None else f", extra cost USD {state.est_cost_usd:.4f}"
        pushed = f", pushed {state.direction}" if state.direction else ""
        yield (
            f"{timestamp(state.time)} {state.count} findings, {state.principals} principals,"
            f" {state.tenants} tenants{cost}{pushed}"
        )


async def _states(kafka: Kafka) -> list[Alert]:
    """Every published state once, in order of publication for each alert; what is no alert is left out."""
    states: dict[tuple[str, int], Alert] = {}
    async for record in read_to_end(connection(kafka), named(ALERTS, kafka.topic_suffix), must_exist=True):
        try:
            state = decode(Alert, record)
        except InvalidRecord as error:
            click.echo(f"skipped: {error}", err=True)
            continue
        states[state.alert_id, state.sequence] = state
    return sorted(states.values(), key=lambda state: (state.starts_at, state.alert_id, state.sequence))
