"""`pointsman schema`: the records' JSON Schemas, exported and checked."""

from pathlib import Path

import click

from schemas.export import FOLDER, RECORDS, breaks, dump, json_schema, read

_FOLDER = click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default=FOLDER, help="Default: the package's own."
)


@click.group()
def command() -> None:
    """JSON Schema of every record."""


@command.command()
@_FOLDER
@click.option("--breaking", is_flag=True, help="Write even what can no longer read old records.")
def export(folder: Path, breaking: bool) -> None:
    """Write the schemas made from the code; refuse a change that breaks readers of old records."""
    problems = [f"{name}: {line}" for name, old in _exported(folder) for line in breaks(old, json_schema(name))]
    if problems and not breaking:
        raise click.ClickException("\n".join(["not backward compatible (--breaking writes it):", *problems]))
    folder.mkdir(parents=True, exist_ok=True)
    for name in RECORDS:
        (folder / f"{name}.json").write_text(dump(json_schema(name)), encoding="utf-8")
    click.echo(f"{len(RECORDS)} schemas in {folder}")


@command.command()
@_FOLDER
def check(folder: Path) -> None:
    """Exit with 1 if a schema made from the code differs from the exported one; names what breaks."""
    exported = dict(_exported(folder))
    problems = [f"{name}: not exported" for name in RECORDS if name not in exported]
    for name, old in exported.items():
        new = json_schema(name)
        if old != new:
            problems += [f"{name}: {line}" for line in breaks(old, new)] or [
                f"{name}: differs, compatibly: export it"
            ]
    if problems:
        raise click.ClickException("\n".join(["schemas:", *problems]))
    click.echo(f"{len(RECORDS)} schemas are current")


def _exported(folder: Path) -> list[tuple[str, dict[str, object]]]:
    return [(name, schema) for name in RECORDS if (schema := read(name, folder)) is not None]
