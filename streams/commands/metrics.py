"""`pointsman metrics`: the table of metrics."""

import json

import click

from streams.metrics import DEFINITIONS, markdown


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON instead of the page docs/metrics.md.")
def command(as_json: bool) -> None:
    """Print every metric with its labels and their values."""
    if as_json:
        click.echo(json.dumps([definition._asdict() for definition in DEFINITIONS], indent=2))
    else:
        click.echo(markdown(), nl=False)
