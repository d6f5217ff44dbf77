"""See what is in force, what is proposed, what happened, and whether the record is whole."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from detectors.audited import AUDITED
from detectors.thresholds import DEFAULTS
from schemas.signatures import link_problem
from streams import chain
from streams.commands.brokers import json_option, on_brokers, print_json
from streams.commands.config import config_option, load_settings
from streams.commands.stores import on_store
from streams.commands.threshold.links import line_of, name_of, read_links
from streams.notifiers.text import printable


@click.command()
@click.argument("parameter", required=False)
@config_option
@json_option
def get(parameter: str | None, path: Path | None, as_json: bool) -> None:
    """Show what is in force, and which proposals are open."""
    latest = on_brokers(path, read_links)
    values = {name: {"value": value, "version": 0, "mode": "shipped"} for name, value in DEFAULTS.items()}
    for link in latest.in_force:
        values[name_of(link)] = {"value": link.new_value, "version": link.version, "mode": link.mode}
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
        click.echo("open: " + line_of(link))


@click.command()
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
    fleet = [link for link in on_brokers(path, read_links).in_force if not link.scope.tenant_id]
    now_value = {link.parameter: link.new_value for link in fleet}.get(parameter, DEFAULTS[parameter])
    values = {
        "detector": detector, "kind": audited.kind, "stages": list(audited.stages), "old": now_value, "new": value,
        "since": datetime.now(UTC) - timedelta(hours=hours),
    }  # fmt: skip
    rows = on_store(load_settings(path).clickhouse, lambda store: store.query(_DIFF, values)).records()
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


@click.command()
@click.argument("parameter", required=False)
@click.option("--topic", "from_topic", is_flag=True, help="From the topic, which has the latest of each only.")
@config_option
@json_option
def history(parameter: str | None, from_topic: bool, path: Path | None, as_json: bool) -> None:
    """Show all that ever happened to thresholds, oldest first."""
    links = (
        list(on_brokers(path, read_links).links)
        if from_topic
        else on_store(load_settings(path).clickhouse, chain.whole)
    )
    links = [link for link in links if parameter in (None, link.parameter)]
    if as_json:
        print_json(links)
        return
    for link in links:
        click.echo(line_of(link))
    if not links:
        click.echo("nothing was ever moved")


@click.command()
@click.option("--topic", "from_topic", is_flag=True, help="Only the links that the topic has, each by itself.")
@config_option
@json_option
def verify(from_topic: bool, path: Path | None, as_json: bool) -> None:
    """Check the chain: nothing edited, left out or added, all of it signed, history and topic agree."""
    keys = chain.update_keys(load_settings(path).feedback)
    latest = on_brokers(path, read_links)
    if from_topic:
        checked = len(latest.links)
        problems = [problem for link in latest.links if (problem := link_problem(link, keys))]
    else:
        links = on_store(load_settings(path).clickhouse, chain.whole)
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


@click.command()
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
