"""`make demo`: a fleet's traffic through the whole service, with attacks planted, and what became of them.

A real Kafka broker, the real ClickHouse engine behind its wire protocol, and `pointsman serve` as a process of
its own. Everything ends with this program. Exit status 1: an invariant does not hold.
"""

import asyncio
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from loadtests.attacks.campaigns import CAMPAIGNS, KINDS, plant
from loadtests.fleet import Ask, Fleet
from loadtests.player import Groups, play, watch
from loadtests.prompts import data_dir
from loadtests.report import (
    Named,
    Report,
    Seen,
    Told,
    broken,
    latency,
    name_attacks,
    unjudged,
    verdicts_by_request,
)
from loadtests.router import DifficultyRouter
from loadtests.traffic import Attack, Sent, attacks_in, events, score_all
from loadtests.workers import Worker
from schemas.clickhouse import migrations
from schemas.clickhouse.rows import TOPICS
from schemas.events import Outcome, Request, Route
from schemas.topics import EVENTS, FINDINGS
from streams.embedded.clickhouse import ClickHouseServer
from streams.embedded.kafka import KafkaCluster
from streams.kafka import connection
from streams.migrations import migrate
from streams.settings import ClickHouse, Settings
from streams.settings import Kafka as KafkaSettings
from streams.store import Store
from streams.topics import create_topics

ATTACKS = ("known", "unseen", "wallet", "spoof")
CALM = 0.5  # share of the time before the first attack: callers need a past
UNDER_ATTACK = 0.35  # share of the time in which attacks run
PARTITIONS = 2  # each learns on its own: more would need more traffic to know what is usual
LEAD_S = 2.0  # between making the events and the first of them
DRAIN_S = 60.0  # for the service to finish after the last event

say = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much traffic."""

    seconds: float
    rate: float  # ordinary requests a second, in the mean
    seed: int


@dataclass(frozen=True, slots=True)
class Script:
    """The traffic, ready to be turned into events."""

    asks: list[Ask]
    scores: dict[str, float]
    router: DifficultyRouter


def write_script(plan: Plan) -> Script:
    """Make the fleet's asks and the attacks among them, grown against the router; score each prompt once."""
    router = DifficultyRouter.load("words")
    fleet = Fleet(plan.seed, data_dir(), principals=120, tenants=25)
    asks = fleet.asks(int(plan.seconds * plan.rate), plan.rate)
    start, span = CALM * plan.seconds, UNDER_ATTACK * plan.seconds
    for number, name in enumerate(ATTACKS):
        asks += plant(name, fleet, router, start + number * 0.02 * plan.seconds, span)
    asks.sort(key=lambda ask: ask.at)
    return Script(asks, score_all(router, asks), router)


@contextlib.asynccontextmanager
async def service(folder: Path, logs: Path) -> AsyncIterator[tuple[Mapping[str, Any], Store, Settings]]:
    """Broker, engine and worker, up and ready; ended in reverse order whatever happens. Data go to `folder`."""
    with KafkaCluster(1) as kafka, ClickHouseServer(folder / "clickhouse") as engine:
        settings = Settings(
            kafka=KafkaSettings(bootstrap=kafka.bootstrap, partitions=PARTITIONS),
            clickhouse=ClickHouse(dsn=engine.dsn),
        )
        brokers = connection(settings.kafka)
        await create_topics(brokers, PARTITIONS, 1)
        variables = {
            "POINTSMAN_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "POINTSMAN_KAFKA_PARTITIONS": str(PARTITIONS),
            "POINTSMAN_CLICKHOUSE_DSN": engine.dsn,
            "POINTSMAN_NOTIFY_CONSOLE": "false",
        }
        async with Store.of(settings.clickhouse) as store:
            await migrate(store, migrations.load())
            with Worker("pointsman", logs, variables):
                yield brokers, store, settings


async def run(plan: Plan, logs: Path) -> tuple[Report, list[str]]:
    """Run the whole demo; return its report and the invariants that do not hold."""
    began = time.monotonic()
    with say.status("making a fleet's traffic, and growing an unseen trigger against its router"):
        script = write_script(plan)
    say.print(
        f"[green]✓[/] {len(script.asks):,} requests of {plan.seconds:.0f} s, scored by a router that was trained on"
        f" {'real' if data_dir() else 'generated'} prompts (AUC {script.router.auc:.2f} on those held out)"
    )
    say.print("[dim]  starting Apache Kafka, the ClickHouse engine and `pointsman serve`[/]")
    with tempfile.TemporaryDirectory(prefix="pointsman-demo-") as folder:
        async with service(Path(folder), logs) as (brokers, store, settings):
            say.print(f"[green]✓[/] the service is ready after {time.monotonic() - began:.0f} s")
            start = datetime.now(UTC) + timedelta(seconds=LEAD_S)
            sent = events(script.asks, script.scores, script.router, plan.seed, start)
            attacks = attacks_in(script.asks, KINDS, plan.seed)
            seen = await _perform(brokers, settings, sent, attacks, start)
            rows = await count_rows(store, _distinct(sent, seen))
    named = name_attacks(attacks, seen.told.values(), start)
    report = make_report(sent, seen, named, rows, start, time.monotonic() - began)
    problems = broken(report, _distinct(sent, seen))
    show(report, named, problems, start)
    return report, problems


async def _perform(
    brokers: Mapping[str, Any], settings: Settings, sent: Sequence[Sent], attacks: Sequence[Attack], start: datetime
) -> Seen:
    """Play the traffic, watch the answers, and wait until the service has nothing left to do."""
    seen = Seen()
    requests = len({event.event_id for _, event in sent if isinstance(event, Request)})
    columns = (SpinnerColumn(), TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=say) as bars:
        published = bars.add_task("events", total=len(sent))
        judged = bars.add_task("verdicts", total=requests)

        def on_alert(alarm: Told) -> None:
            bars.console.print(_line(alarm, attacks, start))

        def on_sent(number: int) -> None:
            bars.update(published, completed=number)
            bars.update(judged, completed=len(seen.verdicts))

        watching = asyncio.create_task(watch(brokers, seen, on_alert))
        doing = asyncio.create_task(_play_and_drain(brokers, settings, sent, start, seen, requests, on_sent))
        try:
            await asyncio.wait([doing, watching], return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()  # it only ends by an error
            await doing
        finally:
            for task in (doing, watching):
                task.cancel()
            await asyncio.gather(doing, watching, return_exceptions=True)
    return seen


async def _play_and_drain(
    brokers: Mapping[str, Any], settings: Settings, sent: Sequence[Sent], start: datetime, seen: Seen,
    requests: int, on_sent: Callable[[int], None],
) -> None:  # fmt: skip
    """Publish all, then wait until every lane has done all of it; `DRAIN_S` at most."""
    await play(brokers, sent, start, on_sent)
    try:
        async with asyncio.timeout(DRAIN_S), Groups(brokers) as groups:
            while len(seen.verdicts) < requests:
                on_sent(len(sent))
                await asyncio.sleep(0.2)
            # In the order of the flow: what one has finished is what the next must have read.
            await groups.caught_up(settings.detect.group, [EVENTS.name])
            await groups.caught_up(settings.fleet.group, [FINDINGS.name])
            await groups.caught_up(settings.clickhouse.group, list(TOPICS))
            await groups.watched(seen)
    except TimeoutError:
        say.print(f"[red]✗ {DRAIN_S:.0f} s after the last event the service is still behind[/]")
    on_sent(len(sent))


def _distinct(sent: Sequence[Sent], seen: Seen) -> dict[str, int]:
    """Rows that each table must have: one for each id."""

    def ids(kind: type) -> int:
        return len({event.event_id for _, event in sent if isinstance(event, kind)})

    return {
        "requests": ids(Request),
        "routes": ids(Route),
        "outcomes": ids(Outcome),
        "verdicts": len(seen.verdicts),
        "findings": len(seen.findings),
        "alerts": len(seen.alert_states),
    }


async def count_rows(store: Store, expected: Mapping[str, int]) -> dict[str, int]:
    """Rows of each table, each identity once."""
    counts = {}
    for table in (*expected, "reasons", "dead_letters"):
        answer = await store.query(f"SELECT count() FROM {table} FINAL")  # noqa: S608 - names of our own
        counts[table] = int(answer.rows[0][0])
    return counts


def make_report(
    sent: Sequence[Sent], seen: Seen, named: Named, rows: dict[str, int], start: datetime, seconds: float
) -> Report:
    """Put the figures together."""
    requests = {event.event_id for _, event in sent if isinstance(event, Request)}
    counts = verdicts_by_request(requests, seen)
    reasons = unjudged(seen)
    judged = sum(count > 0 for count in counts.values()) - sum(reasons.values())
    playing = (seen.last_verdict - start).total_seconds() if seen.last_verdict else 0.0
    return Report(
        events=len(sent),
        requests=len(requests),
        verdicts=len(seen.verdicts),
        verdicts_per_request_min=min(counts.values(), default=0),
        verdicts_per_request_max=max(counts.values(), default=0),
        unjudged=reasons,
        coverage=judged / max(1, len(requests)),
        attacks=named.detections,
        false_alerts=len(named.false),
        alert_latency_ms=latency(seen.told.values(), seen.findings),
        requests_per_s=round(len(seen.verdicts) / playing, 1) if playing > 0 else 0.0,
        rows_in_clickhouse=rows,
        seconds=round(seconds, 1),
    )


def show(report: Report, named: Named, problems: Sequence[str], start: datetime) -> None:
    """Print the report for people: what was found, what was missed, and what was alarmed for nothing."""
    found = Table(title="What was planted", title_justify="left", expand=False)
    for heading in ("attack", "what it was", "requests", "named", "first alert after"):
        found.add_column(heading)
    for attack in named.detections:
        after = "-" if attack.first_alert_s is None else f"{attack.first_alert_s:.1f} s"
        verdict = "[green]yes[/]" if attack.detected else "[red]missed[/]"
        found.add_row(attack.name, CAMPAIGNS[attack.name].about, str(attack.planted), verdict, after)
    say.print(found)
    for title, alarms in (("Consequences of attacks, alarmed under other names", named.side),
                          ("False alerts: no planted attack behind them", named.false)):  # fmt: skip
        if alarms:
            say.print(f"[bold]{title}[/]")
            for alarm in alarms:
                say.print("  " + _facts(alarm, start))
    if not named.false:
        say.print("[green]No false alerts.[/]")

    numbers = Table(show_header=False, title="The run", title_justify="left")
    missing = ", ".join(f"{reason} {n}" for reason, n in report.unjudged.items()) or "none"
    slow = report.alert_latency_ms
    for label, value in (
        ("requests, events", f"{report.requests:,}, {report.events:,}"),
        ("verdicts a request", f"{report.verdicts_per_request_min} to {report.verdicts_per_request_max}"),
        ("coverage", f"{report.coverage:.4%} (unjudged: {missing})"),
        ("event to alert", "-" if slow.p50 is None else f"{slow.p50:.0f} ms median, {slow.p99:.0f} ms p99"),
        ("requests a second", f"{report.requests_per_s:,.0f} (as played, not the most it can do)"),
        ("rows in ClickHouse", ", ".join(f"{table} {n:,}" for table, n in report.rows_in_clickhouse.items())),
        ("seconds in all", f"{report.seconds:.0f}"),
    ):
        numbers.add_row(label, value)
    say.print(numbers)
    for problem in problems:
        say.print(f"[bold red]✗ {problem}[/]")
    if not problems:
        say.print("[green]✓ every request has exactly one verdict, and every record its row in ClickHouse[/]")


def _line(alarm: Told, attacks: Sequence[Attack], start: datetime) -> str:
    named = name_attacks(attacks, [alarm], start)
    credit = [detection.name for detection in named.detections if detection.detected]
    colour = "green" if credit else "yellow" if named.side else "red"
    about = f"planted: {', '.join(credit)}" if credit else "of an attack" if named.side else "nothing was planted"
    return f"[{colour}]▲[/] {_facts(alarm, start)} [{colour}]({about})[/]"


def _facts(alarm: Told, start: datetime) -> str:
    alert = alarm.alert
    about = alert.trigger_id or alert.window or alert.principal_hash or alert.tenant_id or alert.router_name
    about = about.removeprefix("hmac-sha256:")[:16]
    seconds = (alarm.at - start).total_seconds()
    return f"{seconds:6.1f} s  {alert.severity:<8}  {alert.alertname:<18}  {about:<16}"


@click.command()
@click.option("--short", is_flag=True, help="40 seconds of traffic, for CI.")
@click.option("--seconds", type=click.FloatRange(min=10), help="Seconds of traffic.")
@click.option("--rate", default=250.0, show_default=True, help="Ordinary requests a second.")
@click.option("--seed", default=7, show_default=True)
@click.option("--out", default=".demo", show_default=True, type=click.Path(file_okay=False, path_type=Path))
def main(short: bool, seconds: float | None, rate: float, seed: int, out: Path) -> None:
    """Play a fleet's traffic with planted attacks through the whole service, and report."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C, and so ends what it started
    out.mkdir(parents=True, exist_ok=True)
    (out / "pointsman.log").unlink(missing_ok=True)  # of the run before
    plan = Plan(seconds or (40.0 if short else 110.0), rate, seed)
    try:
        report, problems = asyncio.run(run(plan, out))
    except KeyboardInterrupt:
        say.print("[yellow]stopped; everything that was started has ended[/]")
        sys.exit(130)
    path = out / "report.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    say.print(f"[dim]written to {path}; the service's log is {out / 'pointsman.log'}[/]")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
