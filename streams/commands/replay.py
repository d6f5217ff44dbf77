"""`pointsman replay`: a file of events through the detect and fleet lanes, without Kafka."""

import sys
from pathlib import Path

import click
import msgspec


@click.command()
@click.argument("events", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), required=True,
              help="Where the verdicts, findings, alerts and dead letters go ('-': standard output).")  # fmt: skip
def command(events: Path, out: Path) -> None:
    """Judge EVENTS (one JSON object a line, as a value of the events topic) and write what came of it.

    Event time only, and deterministic: two runs write the same bytes.
    """
    from detectors.alerting import Alerting
    from detectors.detections import shipped
    from detectors.judge import Judge, JudgeLimits
    from detectors.panel import build_panel
    from detectors.registry import stream_detectors
    from detectors.thresholds import Thresholds
    from streams.replay import replay

    lines = events.read_bytes().split(b"\n")
    if lines and not lines[-1].strip():
        lines.pop()  # the file's last newline
    thresholds = Thresholds()
    judge = Judge(build_panel(thresholds), stream_detectors(thresholds), JudgeLimits())
    result = replay(lines, judge, Alerting(shipped()), flush_ms=60_000)
    data = msgspec.json.format(msgspec.json.encode(result), indent=1)
    if str(out) == "-":
        sys.stdout.buffer.write(data + b"\n")
    else:
        out.write_bytes(data + b"\n")
        click.echo(
            f"{len(lines)} events: {len(result.verdicts)} verdicts, {len(result.findings)} findings,"
            f" {len(result.alerts)} alerts, {len(result.deadletters)} dead letters -> {out}"
        )
