"""`pointsman detections`: list them, and run the tests inside each."""

import json
from pathlib import Path
from typing import Any

import click

from detectors.detections import Detection, DetectionError, load
from detectors.detections.examples import failures
from detectors.detections.loader import read
from streams.commands.brokers import json_option
from streams.commands.config import config_option, load_settings


@click.group()
def command() -> None:
    """Detections: which findings are an alert. Those that ship, and those of the folder in `fleet.detections`."""


_folder = click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))


@command.command("ls")
@_folder
@config_option
@json_option
def list_detections(folder: Path | None, path: Path | None, as_json: bool) -> None:
    """List those in force; with FOLDER, as if it were the settings'."""
    found = [(_facts(detection), source) for detection, source in _in_force(folder, path)]
    if as_json:
        click.echo(json.dumps([{**facts, "from": source} for facts, source in found], indent=2))
        return
    for facts, source in found:
        click.echo(
            f"{facts['rule_id']:<22} {facts['severity']:<9} by {', '.join(facts['group_by'])}: {facts['when']}"
            f"\n    {facts['display_name']} ({source})"
        )


@command.command()
@_folder
@config_option
@json_option
def test(folder: Path | None, path: Path | None, as_json: bool) -> None:
    """Run the tests inside each detection; exit with 1 if one fails, or if a file is not valid."""
    held = [detection for detection, _ in _in_force(folder, path)]
    failed = [failure for detection in held for failure in failures(detection)]
    count = sum(len(detection.tests) for detection in held)
    if as_json:
        told = {"detections": len(held), "tests": count, "failed": [failure._asdict() for failure in failed]}
        click.echo(json.dumps(told, indent=2))
    else:
        for failure in failed:
            click.echo(f"{failure.rule_id}: {failure.name}: {failure.why}", err=True)
        click.echo(f"{len(held)} detections, {count} tests, {len(failed)} failed")
    if failed:
        raise click.exceptions.Exit(1)


def _in_force(folder: Path | None, config: Path | None) -> list[tuple[Detection, str]]:
    """Each with where it is from."""
    setting = load_settings(config).fleet.detections
    own = folder or (Path(setting) if setting else None)
    try:
        held = sorted(load(own), key=lambda detection: detection.rule_id)
        of_own = {detection.rule_id for detection in read(own)} if own else set()
    except DetectionError as error:
        raise click.ClickException(str(error)) from error
    return [(detection, str(own) if detection.rule_id in of_own else "shipped") for detection in held]


def _facts(detection: Detection) -> dict[str, Any]:
    when = detection.when
    value = ", ".join(detection.log_types)
    if when.condition is not None:
        what = f"values of {when.condition.field} in " if when.condition.field else ""
        value = f"{when.condition.gte} or more {what}{value}"
    return {
        "rule_id": detection.rule_id,
        "display_name": detection.display_name,
        "severity": detection.severity,
        "log_types": list(detection.log_types),
        "group_by": list(when.group_by),
        "when": f"{when.type}, {value} within {when.timespan}",
    }
