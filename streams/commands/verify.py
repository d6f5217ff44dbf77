"""`pointsman verify`: whether an evidence file is as it was exported."""

from pathlib import Path

import click
import msgspec

from streams.commands.brokers import json_option
from streams.evidence.bundle import BadEvidence, Verified, verify
from streams.notifiers.text import printable


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seal", default="", help="The file's SHA-256, as `pointsman export` printed it.")
@json_option
def command(file: Path, seal: str, as_json: bool) -> None:
    """Check FILE's parts against its manifest, and FILE against the seal; exit with 1 where they differ.

    Without --seal it shows only that the parts fit together: whoever could write the file could have made it anew.
    """
    try:
        found = verify(file.read_bytes(), seal)
    except BadEvidence as error:
        raise click.ClickException("\n".join(map(printable, error.problems))) from error
    show(file, found, as_json)
    if not as_json:
        unsealed = "its parts agree with its manifest; whether it is what was exported, only --seal shows"
        click.echo("the seal fits: it is what was exported" if seal else unsealed)


def show(file: Path, found: Verified, as_json: bool) -> None:
    """Print what a good file holds."""
    if as_json:
        click.echo(msgspec.json.encode({"file": str(file), **msgspec.to_builtins(found)}).decode())
    else:
        click.echo(f"{file}: alert {printable(found.alert_id)}, {found.parts} parts, exported {found.exported_at}")
        click.echo(f"seal {found.seal}")
