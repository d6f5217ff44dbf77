"""`pointsman replay`: a file of events, or a window of Kafka's or the history's, judged again."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from schemas.clickhouse.named import moment
from streams.commands.config import config_option, load_settings
from streams.commands.stores import on_store
from streams.commands.triggers import resolve
from streams.notifiers.text import timestamp
from streams.past.results import runs
from streams.past.run import Run, Window, ms
from streams.settings import Settings
from streams.store import Store

if TYPE_CHECKING:
    from detectors.discovery.transplant import Probes

MOST_SHOWN = 10  # dead letters of a file, on standard error; the results have all


class Moment(click.ParamType):
    """As the named queries take it: `now`, `-24h`, or ISO 8601 with a zone."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The time, or the command's end."""
        try:
            return value if isinstance(value, datetime) else moment(str(value), datetime.now(UTC))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("events", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--from", "begins", type=Moment(), help="Begin of the window, in the broker's time.")
@click.option("--to", "ends", type=Moment(), default="now", show_default=True, help="Its end, exclusive.")
@click.option("--source", type=click.Choice(["kafka", "history"]), default="kafka", show_default=True,
              help="Kafka has the prompts, as long as it keeps them; the history has scores.")  # fmt: skip
@click.option("--warm-up", type=click.IntRange(0, 2_592_000), default=3_600, show_default=True, metavar="SECONDS",
              help="Judged before the window, for baselines; what is said then is not kept.")  # fmt: skip
@click.option("--thresholds", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="YAML or JSON, `detector.parameter: number`, over those in force.")  # fmt: skip
@click.option("--catalogue", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="JSONL of triggers, in place of the one in force.")  # fmt: skip
@click.option("--list", "listing", is_flag=True, help="List the replays that there are.")
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), is_flag=False, flag_value="-",
              help="Of a file: where its results go ('-': standard output). Else: print as JSON.")  # fmt: skip
@click.option("--router", default="", help="Of a file: MODULE:NAME of what returns a router with score(texts), for"
              " transplants.")  # fmt: skip
@config_option
def command(
    events: Path | None, begins: datetime | None, ends: datetime, source: str, warm_up: int,
    thresholds: Path | None, catalogue: Path | None, listing: bool, out: Path | None, router: str,
    path: Path | None,
) -> None:  # fmt: skip
    """Judge the past again, in stream time. It pages nobody and touches nothing of the live service.

    With EVENTS (one JSON object a line, as a value of the events topic), judged as the settings say, the results go
    to a file; what is no event is named on standard error. With --from they go to the history's replay
    tables under a run id; `pointsman diff` compares runs. The same events, thresholds, catalogue and release give
    the same results, and the same run id.
    """
    if listing:
        _show(on_store(load_settings(path).clickhouse, runs), out is not None)
    elif begins is not None and events is None:
        wanted = Window(ms(begins) - 1000 * warm_up, ms(begins), ms(ends))
        _show([_replay_window(load_settings(path), wanted, source, thresholds, catalogue)], out is not None)
    elif events is not None and begins is None and out is not None:
        _replay_file(load_settings(path), events, out, thresholds, catalogue, router)
    else:
        raise click.UsageError("give a file of EVENTS and --json, or --from, or --list")


def _replay_window(
    settings: Settings, window: Window, source: str, thresholds: Path | None, catalogue: Path | None
) -> Run:
    from aiokafka.errors import KafkaError

    from detectors.catalogue import CatalogueError
    from streams.past.session import KAFKA, Wanted, read_thresholds, replay_past

    if window.begins >= window.ends:
        raise click.UsageError("--from lies behind --to")
    if source == KAFKA and not settings.kafka.bootstrap:
        raise click.ClickException("no brokers: set kafka.bootstrap, or replay from --source history")
    try:
        wanted = Wanted(source, window, read_thresholds(thresholds) if thresholds else {}, catalogue)

        async def work(store: Store) -> Run:
            return await replay_past(settings, wanted, store)

        return on_store(settings.clickhouse, work)
    except (ValueError, CatalogueError, KafkaError) as error:
        raise click.ClickException(str(error)) from error


def _replay_file(
    settings: Settings, events: Path, out: Path, thresholds_file: Path | None, catalogue: Path | None, router: str
) -> None:
    from detectors.catalogue import CatalogueError, read_records
    from detectors.detections import load
    from detectors.fleet import FleetPartition
    from detectors.judge import Judge
    from detectors.registry import stream_detectors
    from streams.lanes.detect import limits_of, panel_of
    from streams.past.session import read_thresholds
    from streams.replay import replay

    if not out.parent.is_dir():  # said before the events are judged, which may take long
        raise click.ClickException(f"{out.parent} is no folder")
    lines = events.read_bytes().split(b"\n")
    if lines and not lines[-1].strip():
        lines.pop()  # the file's last newline
    detect, folder = settings.detect, settings.fleet.detections
    try:
        panel = panel_of(msgspec.structs.replace(detect, window_text=detect.window_text or bool(router)))
        if thresholds_file:
            panel.thresholds.swap(read_thresholds(thresholds_file), panel.thresholds.version)
        if catalogue:
            panel.swap_catalogue(read_records(catalogue).catalogue())
        detections = load(Path(folder) if folder else None)
    except (OSError, ValueError, CatalogueError) as error:
        raise click.ClickException(str(error)) from error
    thresholds = panel.thresholds
    probes = _probes(router) if router else None
    judge = Judge(panel, stream_detectors(thresholds, panel.rules), limits_of(detect), detections=detections)
    fleet = FleetPartition.build(
        detections, thresholds, transplants=bool(router), resend_seconds=settings.fleet.resend_seconds
    )
    result = replay(lines, judge, fleet, flush_ms=60_000, probes=probes)
    data = msgspec.json.format(msgspec.json.encode(result), indent=1)
    if str(out) == "-":
        sys.stdout.buffer.write(data + b"\n")
    else:
        out.write_bytes(data + b"\n")
        click.echo(
            f"{len(lines)} events: {len(result.verdicts)} verdicts, {len(result.findings)} findings,"
            f" {len(result.alerts)} alerts, {len(result.deadletters)} dead letters -> {out}"
        )
    for letter in result.deadletters[:MOST_SHOWN]:
        field = f" {letter.field}" if letter.field else ""
        click.echo(f"{events}, line {letter.offset + 1}:{field} {letter.reason}: {letter.detail}", err=True)
    if len(result.deadletters) > MOST_SHOWN:
        click.echo(f"... and {len(result.deadletters) - MOST_SHOWN} more", err=True)


def _probes(router: str) -> "Probes":
    from detectors.discovery.transplant import Probes, shipped_probes

    try:
        return Probes(resolve(router)(), shipped_probes())
    except click.ClickException:
        raise
    except Exception as error:  # the router's code is the user's
        raise click.ClickException(f"no router {router}: {error}") from error


def _show(found: Sequence[Run], as_json: bool) -> None:
    if as_json:
        shown = [{**msgspec.to_builtins(run), "pins": json.loads(run.pins)} for run in found]
        click.echo(json.dumps(shown, indent=2))
        return
    for run in found:
        erased = f", {run.left_out} of erased principals left out" if run.left_out else ""
        click.echo(
            f"{run.run_id}  {run.source:<7}  {timestamp(run.begins)} to {timestamp(run.ends)}  {run.events} events,"
            f" {run.verdicts} verdicts, {run.flagged} flagged, {run.findings} findings, {run.alerts} alerts{erased}"
        )
    if not found:
        click.echo("no replays")
