"""`pointsman kafka`: the embedded broker by hand, and its jars."""

import contextlib
import signal
from pathlib import Path

import click

from streams.embedded.jars import LOCK, JarError, ensure, resolve_lock
from streams.embedded.kafka import KafkaCluster, KafkaError


@click.group()
def command() -> None:
    """The embedded Kafka: run it by hand, fetch or re-lock its jars."""


@command.command()
def fetch() -> None:
    """Fetch the jars that are missing from the cache, and verify all."""
    try:
        jars = ensure()
    except JarError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{len(jars)} jars are as locked, in {jars[0].parent}")


@command.command()
def lock() -> None:
    """Resolve Kafka's jars anew and write deploy/kafka/jars.lock: read what changed before committing it."""
    LOCK.write_text(resolve_lock())
    click.echo(f"wrote {LOCK}")


@command.command()
@click.option("--nodes", type=click.Choice(["1", "3"]), default="1", show_default=True, help="How many brokers.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder to keep the data in (default: thrown away).")
def run(nodes: str, data: Path | None) -> None:
    """Run brokers on this machine until Ctrl-C; prints their addresses."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C
    try:
        with contextlib.suppress(KeyboardInterrupt), KafkaCluster(1 if nodes == "1" else 3, data) as cluster:
            click.echo(cluster.bootstrap)
            signal.pause()
    except (JarError, KafkaError) as error:
        raise click.ClickException(str(error)) from error
