"""`pointsman diff`: what one replay says that another, or the live service, did not."""

from collections import Counter
from pathlib import Path
from typing import get_args

import click

from streams.commands.brokers import json_option, print_json
from streams.commands.config import config_option, load_settings
from streams.commands.stores import on_store
from streams.notifiers.text import inert, timestamp
from streams.past.diff import LATENCY_S, Change, Difference, What, difference
from streams.past.results import LIVE, UnknownRun
from streams.store import Store


@click.command()
@click.argument("run_a")
@click.argument("run_b")
@config_option
@json_option
def command(run_a: str, run_b: str, path: Path | None, as_json: bool) -> None:
    """Compare replays RUN_A and RUN_B, by the beginnings of their ids; `live` is what was said at the time.

    Alerts are new, lost, earlier or later in RUN_B, by the first firing of each identity in the time that both
    cover; verdicts are counted by detector.
    """

    async def work(store: Store) -> Difference:
        return await difference(store, run_a, run_b)

    try:
        found = on_store(load_settings(path).clickhouse, work)
    except (UnknownRun, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: Difference) -> None:
    click.echo(f"{found.a} to {found.b}, {timestamp(found.begins)} to {timestamp(found.ends)}")
    for name in found.unlike:
        click.echo(f"  beware: not the same {name}")
    for name, (a, b) in found.pins.items():
        if name not in found.unlike:
            click.echo(f"  {name}: {a} to {b}")
    for change in found.changes:
        click.echo(_line(change))
    counts = Counter(change.what for change in found.changes)
    said = ", ".join(f"{counts[what]} {what}" for what in get_args(What))
    click.echo(f"alerts: {said}, {found.same} at the same time")
    for detector, newly, no_longer in found.verdicts:
        click.echo(f"requests flagged by {detector or 'any detector'}: {newly} newly, {no_longer} no longer")
    if LIVE in (found.a, found.b):
        click.echo("(live: with the thresholds, catalogue and state of the time, when the fleet lane came to it;"
                   f" less than {LATENCY_S:.0f} s apart is the same time)")  # fmt: skip


def _line(change: Change) -> str:
    named = ("alertname", "category")
    identity = " ".join(f"{inert(k)}={inert(v)}" for k, v in sorted(change.labels.items()) if v and k not in named)
    fired = change.fired_b or change.fired_a
    when = timestamp(fired) if fired else ""
    shift = f"  {change.seconds:+.1f} s" if change.seconds is not None else ""
    return f"{change.what:<8}{when}  {change.severity:<8} {inert(change.alertname)}  {identity}{shift}"
