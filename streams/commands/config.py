"""`pointsman config`: check, print and document the settings."""

import json
import os
from pathlib import Path

import click
import yaml

from streams.configuration import load, markdown, redacted
from streams.settings import Settings, SettingsError

config_option = click.option(
    "--config", "path", type=click.Path(path_type=Path), help="YAML file (default: POINTSMAN_CONFIG)."
)


def load_settings(path: Path | None) -> Settings:
    """The settings in force, or the command's end with every problem."""
    try:
        return load(path, os.environ)
    except SettingsError as error:
        raise click.ClickException("\n".join(["settings:", *error.problems])) from None


@click.group()
def command() -> None:
    """Check, print and document the settings."""


@command.command()
@config_option
def check(path: Path | None) -> None:
    """Exit with 0 if the settings are valid, else with 1 and every problem."""
    load_settings(path)
    click.echo("settings are valid")


@command.command("print")
@config_option
@click.option("--json", "as_json", is_flag=True, help="As JSON instead of YAML.")
def print_settings(path: Path | None, as_json: bool) -> None:
    """Print what is in force, secrets as `***`."""
    values = redacted(load_settings(path))
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    click.echo(yaml.safe_dump(values, sort_keys=False), nl=False)


@command.command()
def docs() -> None:
    """Print the page docs/settings.md."""
    click.echo(markdown(), nl=False)
