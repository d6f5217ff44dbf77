"""`pointsman export`: an alert's evidence as one file."""

import os
from importlib.metadata import version
from pathlib import Path

import click

from streams.commands.brokers import json_option
from streams.commands.config import config_option, load_settings
from streams.commands.explain import detections_of, dossier_of, text
from streams.commands.verify import show
from streams.evidence.bundle import pack, verify
from streams.evidence.explain import explain


@click.command()
@click.argument("alert_id")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="The file; default: ALERT_ID.zip.")
@config_option
@json_option
def command(alert_id: str, out: Path | None, path: Path | None, as_json: bool) -> None:
    """Write all that the history has on the alert whose id begins with ALERT_ID, and print the file's seal.

    A ZIP: the alert's states, findings, verdicts, reasons, events without text, thresholds, versions, the texts of
    the queries, the explanation, and a manifest of SHA-256 sums. Keep the seal elsewhere: `pointsman verify`
    compares it. A file that is there is not written over.
    """
    settings = load_settings(path)
    dossier = dossier_of(settings, alert_id)
    explanation = explain(dossier, detections_of(settings))
    data = pack(dossier, explanation, text(explanation), version("pointsman"))
    out = out or Path(f"{dossier.alert['alert_id']}.zip")
    try:
        write_whole(out, data)
    except FileExistsError as error:
        raise click.ClickException(f"{out} is there: its seal may be known; give another --out") from error
    except OSError as error:
        raise click.ClickException(f"{out}: {error.strerror}") from error
    show(out, verify(data), as_json)


def write_whole(path: Path, data: bytes) -> None:
    """Write beside it, then link: a full disk, or a crash, leaves no part of the evidence under its name.

    Raises:
        FileExistsError: there is a file of that name, which stays as it is.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(beside)
    finally:
        beside.unlink(missing_ok=True)
