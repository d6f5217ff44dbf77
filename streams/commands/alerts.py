"""`pointsman alerts`: what fires, and what one alert says, from the alerts topic."""

from pathlib import Path

import click
import msgspec
from rich.console import Console

from schemas.alerts import Alert
from schemas.codec import InvalidRecord, decode
from schemas.topics import ALERTS, named
from streams.commands.brokers import json_option, on_brokers
from streams.commands.config import config_option
from streams.kafka import connection, read_to_end
from streams.notifiers.console import line
from streams.notifiers.text import inert, timestamp
from streams.settings import Kafka


@click.group()
def command() -> None:
    """List alerts and show one, as the alerts topic has them."""


@command.command("ls")
@config_option
@click.option("--all", "resolved_too", is_flag=True, help="Resolved ones too, as far back as the topic goes.")
@json_option
def list_alerts(path: Path | None, resolved_too: bool, as_json: bool) -> None:
    """List what fires now: the last state of each alert, oldest first."""
    last = {state.alert_id: state for state in on_brokers(path, _states)}
    found = [state for state in last.values() if resolved_too or state.status == "firing"]
    found.sort(key=lambda state: (state.starts_at, state.alert_id))
    if as_json:
        _print_json(found)
        return
    console = Console(soft_wrap=True, highlight=False)
    for state in found:
        console.print(line(state))
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
        _print_json(states)
        return
    console = Console(soft_wrap=True, highlight=False)
    for state in states:
        console.print(line(state))
    for last in {state.alert_id: state for state in states}.values():
        click.echo("")
        for name, value in _facts(last).items():
            click.echo(f"{name:<18} {value}")


def _facts(alert: Alert) -> dict[str, str]:
    """What is known of an alert, inert, without what is empty."""
    facts = {
        "alert": alert.alert_id,
        "fingerprint": alert.fingerprint,
        "summary": alert.summary,
        "detector": f"{alert.detector} {alert.detector_version}",
        "score": f"{alert.score:.6g}, threshold {alert.threshold:.6g}",
        "direction": alert.direction,
        "window": inert(alert.window),
        "trigger": inert(alert.trigger_id),
        "first event": timestamp(alert.first_event_time) if alert.first_event_time else "",
        "first request": inert(alert.first_request_id),
        "requests": " ".join(map(inert, alert.request_ids)),
        "findings": " ".join(map(inert, alert.finding_ids)),
        "MITRE ATLAS": " ".join(alert.mitre_atlas),
        "OWASP": " ".join(alert.owasp),
        "runbook": alert.runbook_url,
    }
    return {name: value for name, value in facts.items() if value}


async def _states(kafka: Kafka) -> list[Alert]:
    """Every published state once, in order of publication for each alert; what is no alert is left out."""
    states: dict[tuple[str, int], Alert] = {}
    async for record in read_to_end(connection(kafka), named(ALERTS, kafka.topic_suffix)):
        try:
            state = decode(Alert, record)
        except InvalidRecord as error:
            click.echo(f"skipped: {error}", err=True)
            continue
        states[state.alert_id, state.sequence] = state
    return sorted(states.values(), key=lambda state: (state.starts_at, state.alert_id, state.sequence))


def _print_json(alerts: list[Alert]) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(alerts), indent=2).decode())
