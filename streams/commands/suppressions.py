"""`pointsman alerts suppress`, `unsuppress` and `suppressions`: what nobody is to be told of, for a while."""

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import msgspec

from detectors.detections.correlation import milliseconds
from schemas.suppressions import Suppression
from streams.commands.brokers import json_option, on_brokers, print_json
from streams.commands.config import config_option
from streams.kafka import connection
from streams.notifiers.text import inert, timestamp
from streams.settings import Kafka
from streams.suppressions import read, write

_LEAD = timedelta(seconds=5)  # until every worker knows of a rule
_LONGEST = timedelta(days=90)
_owner = click.option("--owner", required=True, help="Who answers for it.")
_reason = click.option("--reason", required=True, help="Why; kept with the rule.")
_dry_run = click.option("--dry-run", is_flag=True, help="Show what would be written.")


@click.command()
@click.option("--match", "matches", multiple=True, metavar="LABEL=VALUE", help="A label of the alerts.")
@click.option("--all", "everything", is_flag=True, help="All alerts: a maintenance window.")
@click.option("--from", "begin", default="0s", metavar="TIME", help="ISO 8601, or from now: 30m.")
@click.option("--until", "end", required=True, metavar="TIME", help="ISO 8601, or so long: 2h, 7d.")
@_owner
@_reason
@_dry_run
@config_option
@json_option
def suppress(
    matches: tuple[str, ...], everything: bool, begin: str, end: str, owner: str, reason: str, dry_run: bool,
    path: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Tell nobody of alerts whose labels match, for a while. They are published and kept as ever."""
    if bool(matches) == everything:
        raise click.UsageError("give --match, or --all for a maintenance window")
    now = datetime.now(UTC)
    starts_at = max(_moment(begin, now), now + _LEAD)
    ends_at = _moment(end, now)
    if not starts_at < ends_at <= starts_at + _LONGEST:
        raise click.UsageError(f"--until must be after the start, by {_LONGEST.days} days at most")
    rule = Suppression(
        suppression_id=f"s-{secrets.token_hex(4)}", labels=dict(map(_pair, matches)), starts_at=starts_at,
        ends_at=ends_at, owner=owner, reason=reason, created_at=now,
    )  # fmt: skip
    _write(rule, path, dry_run, as_json)


@click.command()
@click.argument("suppression_id")
@_owner
@_reason
@_dry_run
@config_option
@json_option
def unsuppress(
    suppression_id: str, owner: str, reason: str, dry_run: bool, path: Path | None, as_json: bool
) -> None:
    """End a suppression before its time."""
    rule = next((rule for rule in _rules(path) if rule.suppression_id == suppression_id), None)
    now = datetime.now(UTC)
    if rule is None or rule.ends_at <= now:
        raise click.ClickException(f"no suppression {suppression_id!r} is in force or to come")
    ends_at = max(now + _LEAD, rule.starts_at)
    ended = msgspec.structs.replace(rule, ends_at=ends_at, ended_by=owner, ended_because=reason)
    _write(ended, path, dry_run, as_json)


@click.command("suppressions")
@config_option
@click.option("--all", "past_too", is_flag=True, help="Past ones too.")
@json_option
def list_suppressions(path: Path | None, past_too: bool, as_json: bool) -> None:
    """List the suppressions in force and to come, the first to end first."""
    now = datetime.now(UTC)
    found = [rule for rule in _rules(path) if past_too or rule.ends_at > now]
    found.sort(key=lambda rule: (rule.ends_at, rule.suppression_id))
    if as_json:
        print_json(found)
        return
    for rule in found:
        click.echo(_rule_line(rule, now))
    if not found:
        click.echo("no suppressions")


def _write(rule: Suppression, path: Path | None, dry_run: bool, as_json: bool) -> None:
    async def publish(kafka: Kafka) -> None:
        await write(connection(kafka), rule, kafka.topic_suffix)

    if not dry_run:
        on_brokers(path, publish)
    if as_json:
        print_json(rule)
    else:
        click.echo(("would write: " if dry_run else "") + _rule_line(rule, datetime.now(UTC)))


def _rules(path: Path | None) -> list[Suppression]:
    async def all_of_them(kafka: Kafka) -> list[Suppression]:
        return list(await read(connection(kafka), kafka.topic_suffix))

    return on_brokers(path, all_of_them)


def _rule_line(rule: Suppression, now: datetime) -> str:
    state = "past" if rule.ends_at <= now else "in force" if rule.starts_at <= now else "to come"
    labels = " ".join(f"{inert(name)}={inert(value)}" for name, value in sorted(rule.labels.items()))
    ended = f", ended by {inert(rule.ended_by)}: {inert(rule.ended_because)}" if rule.ended_by else ""
    return (
        f"{inert(rule.suppression_id)}  {state}, {timestamp(rule.starts_at)} to {timestamp(rule.ends_at)}"
        f"  {labels or 'all alerts'}  ({inert(rule.owner)}: {inert(rule.reason)}{ended})"
    )


def _pair(match: str) -> tuple[str, str]:
    label, equals, value = match.partition("=")
    if not (label and equals):
        raise click.UsageError(f"--match {match!r} is not LABEL=VALUE")
    return label, value


def _moment(text: str, now: datetime) -> datetime:
    try:
        return now + timedelta(milliseconds=milliseconds(text))
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"{text!r} is no time: 2026-01-31T12:00:00Z, or 30m, 2h, 7d from now") from None
    if moment.tzinfo is None:
        raise click.UsageError(f"{text!r} needs its zone, as 2026-01-31T12:00:00Z")
    return moment.astimezone(UTC)
