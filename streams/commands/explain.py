"""`pointsman explain`: why an alert fired, and what to do."""

from pathlib import Path

import click

from detectors.detections import Detections
from detectors.detections import load as load_detections
from streams.commands.brokers import json_option, print_json
from streams.commands.config import config_option, load_settings
from streams.commands.stores import on_store
from streams.evidence.dossier import Dossier, UnknownAlert, gather
from streams.evidence.explain import Explanation, explain
from streams.notifiers.text import inert, timestamp
from streams.settings import Settings


@click.command()
@click.argument("alert_id")
@config_option
@json_option
def command(alert_id: str, path: Path | None, as_json: bool) -> None:
    """Explain the alert whose id begins with ALERT_ID: why it fired, the numbers, the requests, what to do."""
    settings = load_settings(path)
    found = explain(dossier_of(settings, alert_id), detections_of(settings))
    if as_json:
        print_json(found)
    else:
        click.echo(text(found))


def dossier_of(settings: Settings, alert_id: str) -> Dossier:
    """The alert's dossier, or the command's end."""
    try:
        return on_store(settings.clickhouse, lambda store: gather(store, alert_id))
    except UnknownAlert as error:
        raise click.ClickException(str(error)) from error


def detections_of(settings: Settings) -> Detections:
    """Those in force."""
    return load_detections(Path(settings.fleet.detections) if settings.fleet.detections else None)


def text(found: Explanation) -> str:
    """For people."""
    lines = [found.headline, "", "Why"]
    lines += [f"- {sentence.text}" for sentence in found.why]
    lines += ["", f"In force: thresholds {found.thresholds_version}, catalogue {found.catalogue_version}"]
    lines += [f"  {inert(name)} = {value:g}" for name, value in found.thresholds.items()]
    lines += ["", "Requests"]
    for request in found.requests:
        scores = " ".join(f"{inert(name)}={score:.4g}" for name, score in sorted(request["scores"].items()))
        lines.append(
            f"  {timestamp(request['time'])} {inert(request['request_id'])} {inert(request['decision'])}"
            f" {inert(request['selected_model'])} {scores}"
        )
    if found.runbook:
        lines += ["", "What to do", *found.runbook]
    return "\n".join(lines)
