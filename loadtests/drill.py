"""`make drill`: a benign day must be quiet, and each attack of a bad day must be told once, under its right name.

Both days are replayed in process, in event time, through the detect and fleet lanes' own processors. The detect
lane has as many partitions as ship, each with a state of its own. Arrivals are the real traces' (stretched over the
day), prompts are real ones where `POINTSMAN_DATA` has them.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from detectors.detections import shipped as shipped_detections
from detectors.discovery.transplant import Probes, shipped_probes
from detectors.fleet import FleetPartition
from detectors.judge import Judge, JudgeLimits
from detectors.panel import build_panel
from detectors.processor import Output, Record
from detectors.registry import stream_detectors
from detectors.thresholds import Thresholds
from loadtests.attacks.campaigns import KINDS, plant
from loadtests.fleet import Fleet
from loadtests.partitions import Partitions
from loadtests.prompts import data_dir
from loadtests.report import CLOCKS_S
from loadtests.router import DifficultyRouter, Kind
from loadtests.traffic import START, Attack, attacks_in, events, request_id, score_all
from schemas.alerts import Alert
from schemas.codec import encode
from schemas.topics import ALERTS
from streams.notifiers.ledger import Ledger
from streams.replay import Applies, Result, replay
from streams.settings import Kafka

DAY_S = 86_400.0
ATTACKS = (
    "known", "unseen", "rotation", "middle", "phrase", "wallet", "fleet_wallet", "spoof", "caller_threshold",
    "contradiction", "guardrail_gap", "unsafe_route",
)  # fmt: skip
OF_MANY = ("known_trigger", "trigger_fragment", "unseen_trigger", "fleet_spend")  # alerts of many callers at once
CALM = 0.4  # share of the day before the first attack: callers need a past
LASTS = 0.04  # share of the day that an attack takes
AFTERWARDS_S = 3600.0  # an alert about all callers may come so long after an attack's last request
PARTITIONS = Kafka().partitions
TUNED_ON = 30  # the last seed that detection may be tuned on
HELD_OUT = (
    "This one is held out: it is run again when the code has moved, and nothing is changed for what it shows."
)
FLUSH_MS = 3_600_000  # after the day's last event: alerts resolve

say = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


@dataclass(frozen=True, slots=True)
class Day:
    """How much of what."""

    requests: int
    seed: int
    router: Kind
    attacks: tuple[str, ...] = ()
    principals: int = 300
    tenants: int = 40
    seconds: float = DAY_S
    partitions: int = PARTITIONS


class Benign(msgspec.Struct):
    """A day without attacks. Alerts that were suppressed or inhibited told nobody and do not count."""

    requests: int
    campaigns: int
    alerts: int
    by_name: dict[str, int]


class Found(msgspec.Struct):
    """A planted attack. `alerts`: how many cite or name it; `named`: one of them by its right name."""

    name: str
    planted: int
    detected: bool
    named: bool
    alerts: int
    by_name: dict[str, int]
    first_alert_s: float | None  # from its first request
    requests_until_alert: int | None  # of its own
    evidence_hits: int  # of its requests, cited by its alerts


class Report(msgspec.Struct):
    """The file `.drill/report.json`."""

    seed: int
    router: str
    partitions: int
    benign: Benign
    attacks: list[Found]
    false_alerts: int  # of the bad day: alerts that no attack is behind
    false_by_name: dict[str, int]
    seconds: float


class _Overheard:
    """The fleet's processor, and each alert that a notifier would have told: the first state told, and the last."""

    def __init__(self, inner: Applies) -> None:
        self._inner = inner
        self._ledger = Ledger()
        self.told: dict[str, Alert] = {}
        self.last: dict[str, Alert] = {}

    def apply(self, records: Sequence[Record]) -> list[Output]:
        """See `Processor.apply`."""
        outputs = self._inner.apply(records)
        for output in outputs:
            if output.topic == ALERTS.name:
                alert = msgspec.json.decode(output.value, type=Alert)
                if self._ledger.take(alert):
                    self.told.setdefault(alert.alert_id, alert)
                if alert.alert_id in self.told:
                    self.last[alert.alert_id] = alert
        return outputs


class Alarm(msgspec.Struct):
    """An alert at its first telling and at its end."""

    first: Alert
    last: Alert

    @property
    def seconds(self) -> float:
        """Stream time of the first telling, from the day's start."""
        return (self.first.time - START) / timedelta(seconds=1)


class Played(msgspec.Struct):
    """What came of a day."""

    result: Result
    alarms: list[Alarm]
    attacks: list[Attack]
    sent_at: dict[str, float]  # by request id, seconds from the start


def play(day: Day) -> Played:
    """Make a day's events and replay them."""
    router = DifficultyRouter.load(day.router)
    fleet = Fleet(day.seed, data_dir(), principals=day.principals, tenants=day.tenants)
    asks = fleet.asks(day.requests, day.requests / day.seconds)
    step = (1 - CALM - LASTS) / max(1, len(day.attacks))
    for number, name in enumerate(day.attacks):
        asks += plant(name, fleet, router, (CALM + number * step) * day.seconds, LASTS * day.seconds)
    asks.sort(key=lambda ask: ask.at)
    lines = [encode(event) for _, event in events(asks, score_all(router, asks), router, day.seed)]
    thresholds = Thresholds()
    panel = build_panel(thresholds, window_text=True)

    def judge(partition: int) -> Judge:
        return Judge(panel, stream_detectors(thresholds), JudgeLimits(), partition)

    detections, probes = shipped_detections(), Probes(router, shipped_probes())
    fleet_lane = _Overheard(FleetPartition.build(detections, thresholds, transplants=True))
    result = replay(lines, Partitions(judge, day.partitions), fleet_lane, FLUSH_MS, probes)
    alarms = [Alarm(first, fleet_lane.last[alert_id]) for alert_id, first in fleet_lane.told.items()]
    sent_at = {request_id(day.seed, number): ask.at for number, ask in enumerate(asks)}
    return Played(result, alarms, attacks_in(asks, KINDS, day.seed), sent_at)


def count(alarms: Sequence[Alarm]) -> dict[str, int]:
    """How many alerts of each name."""
    names = sorted(alarm.first.alertname for alarm in alarms)
    return {name: names.count(name) for name in dict.fromkeys(names)}


def benign(day: Day, played: Played) -> Benign:
    """Sum up a day without attacks."""
    campaigns = [a for a in played.alarms if a.last.campaign or a.first.alertname in OF_MANY]
    return Benign(day.requests, len(campaigns), len(played.alarms), count(played.alarms))


def find(attack: Attack, alarms: Sequence[Alarm], sent_at: Mapping[str, float]) -> Found:
    """Credit alerts to one attack: those that cite its requests, and those that name its callers while it runs."""
    planted = set(attack.request_ids)
    mine = [alarm for alarm in alarms if concerns(alarm, attack)]
    named = [alarm for alarm in mine if alarm.first.alertname in attack.kinds]
    first = min((alarm.seconds for alarm in named), default=None)
    return Found(
        name=attack.name,
        planted=len(planted),
        detected=bool(mine),
        named=bool(named),
        alerts=len(mine),
        by_name=count(mine),
        # What was told before it began is of a former attack with the same text: it was known already.
        first_alert_s=None if first is None else round(max(0.0, first - attack.first_at), 1),
        requests_until_alert=None if first is None else sum(sent_at[name] <= first for name in planted),
        evidence_hits=len(planted & {name for alarm in mine for name in alarm.last.request_ids}),
    )


def concerns(alarm: Alarm, attack: Attack) -> bool:
    """Whether an alert is about an attack: it cites a request, names a caller, or is of all just then."""
    if not {alarm.first.first_request_id, *alarm.last.request_ids}.isdisjoint(attack.request_ids):
        return True
    if alarm.first.alertname not in attack.kinds or alarm.seconds < attack.first_at - CLOCKS_S:
        return False
    if alarm.last.principal_hash:
        return alarm.last.principal_hash in attack.principals
    return alarm.first.alertname == "fleet_spend" and alarm.seconds <= attack.last_at + AFTERWARDS_S


def drill(
    requests: int, seed: int, router: Kind, attacks: tuple[str, ...] = ATTACKS, partitions: int = PARTITIONS
) -> Report:
    """Play both days and report."""
    began = time.monotonic()
    quiet = Day(requests, seed, router, partitions=partitions)
    calm = benign(quiet, play(quiet))
    played = play(Day(requests, seed + 1, router, attacks, partitions=partitions))
    found = [find(attack, played.alarms, played.sent_at) for attack in played.attacks]
    false = [alarm for alarm in played.alarms if not any(concerns(alarm, attack) for attack in played.attacks)]
    seconds = round(time.monotonic() - began, 1)
    return Report(seed, router, partitions, calm, found, len(false), count(false), seconds)


def show(report: Report) -> None:
    """Print the report for people."""
    table = Table(title="Planted attacks", title_justify="left")
    for heading in (
        "attack",
        "requests",
        "named",
        "alerts",
        "first alert after",
        "its requests by then",
        "evidence",
    ):
        table.add_column(heading)
    for found in report.attacks:
        named = "[green]yes[/]" if found.named else "[yellow]otherwise[/]" if found.detected else "[red]missed[/]"
        after = "-" if found.first_alert_s is None else f"{found.first_alert_s:,.0f} s"
        alerts = _listed(found.by_name) or "none"
        used = "-" if found.requests_until_alert is None else str(found.requests_until_alert)
        table.add_row(found.name, str(found.planted), named, alerts, after, used, str(found.evidence_hits))
    say.print(table)
    calm = report.benign
    say.print(
        f"benign day: {calm.requests:,} requests, {calm.campaigns} campaigns, {calm.alerts} alerts {calm.by_name}"
    )
    say.print(f"bad day: {report.false_alerts} alerts that no attack is behind {report.false_by_name}")


def page(report: Report) -> str:
    """The page docs/drill.md."""
    calm = report.benign
    told = f"{calm.campaigns} campaigns, {calm.alerts} alerts" + (
        f" ({_listed(calm.by_name)})" if calm.alerts else ""
    )
    false = f"{report.false_alerts}" + (f" ({_listed(report.false_by_name)})" if report.false_alerts else "")
    seconds = round(report.seconds)
    lines = [
        "# The drill",
        "",
        f"Written by `make drill ARGS='--seed {report.seed} --page'` (router `{report.router}`, {seconds} s):",
        "a benign day and a day of attacks, replayed in event time through both lanes' own processors, the detect",
        f"lane's on {report.partitions} partitions that share nothing. What was told is what a notifier would have",
        "sent: suppressed and inhibited alerts are not counted.",
        "",
        f"Detection is tuned on seeds up to {TUNED_ON}. "
        + (HELD_OUT if report.seed > TUNED_ON else "This is one of them."),
        "",
        f"Benign day: {calm.requests:,} requests, {told}. The day of attacks has as many ordinary requests;",
        f"alerts that no attack is behind: {false}.",
        "",
        "| attack | its requests | named | alerts about it | first after | of its requests by then | in evidence |",
        "|---|---|---|---|---|---|---|",
    ]
    for found in report.attacks:
        after = "-" if found.first_alert_s is None else f"{found.first_alert_s:,.0f} s"
        used = "-" if found.requests_until_alert is None else str(found.requests_until_alert)
        named = "yes" if found.named else "under another name" if found.detected else "**missed**"
        alerts = _listed(found.by_name) or "none"
        row = (found.name, str(found.planted), named, alerts, after, used, str(found.evidence_hits))
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def _listed(by_name: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in by_name.items())


@click.command()
@click.option("--requests", default=100_000, show_default=True, help="Ordinary requests of each day.")
@click.option("--short", is_flag=True, help="5,000 requests a day.")
@click.option("--seed", default=11, show_default=True)
@click.option("--router", default="words", show_default=True, type=click.Choice(["words", "chars", "static"]))
@click.option("--partitions", default=PARTITIONS, show_default=True, help="Of the detect lane.")
@click.option("--attacks", default=",".join(ATTACKS), help="By commas.")
@click.option("--page", "to_page", is_flag=True, help="Write docs/drill.md too.")
@click.option("--out", default=".drill", show_default=True, type=click.Path(file_okay=False, path_type=Path))
def main(
    requests: int, short: bool, seed: int, router: Kind, partitions: int, attacks: str, to_page: bool, out: Path
) -> None:
    """Replay a benign day and a day of attacks, and say what was told."""
    report = drill(5_000 if short else requests, seed, router, tuple(filter(None, attacks.split(","))), partitions)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "report.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    show(report)
    if to_page:
        Path("docs/drill.md").write_text(page(report))
    say.print(f"[dim]written to {path} after {report.seconds:.0f} s[/]")


if __name__ == "__main__":
    main()
