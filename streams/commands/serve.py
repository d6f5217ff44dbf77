"""`pointsman serve`: run the service, all roles in one process or the ones asked for."""

import asyncio
import contextlib
import gc
import logging
import os
import sys
from pathlib import Path

import click
import msgspec

from streams.configuration import load
from streams.settings import Settings, SettingsError


@click.command()
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="YAML settings.")
@click.option("--role", "roles", multiple=True,
              type=click.Choice(["detect", "fleet", "feedback", "history", "notify"]),
              help="Only this role (may be repeated); all of them by default.")  # fmt: skip
def command(config: Path | None, roles: tuple[str, ...]) -> None:
    """Judge a fleet's events until stopped (SIGTERM: what is in flight is finished first).

    Without `kafka.bootstrap` an embedded Kafka node is started, for a first look on one machine.
    """
    try:
        settings = load(config, os.environ)
    except SettingsError as error:
        raise click.ClickException("\n".join(error.problems)) from error
    if "feedback" in roles and not settings.feedback.key:
        raise click.ClickException("the role feedback needs feedback.key (docs/feedback.md)")
    with contextlib.ExitStack() as stack:
        if not settings.kafka.bootstrap:
            settings = _with_embedded_kafka(settings, stack)
        sys.exit(_run(settings, roles))


def _with_embedded_kafka(settings: Settings, stack: contextlib.ExitStack) -> Settings:
    from streams.embedded.kafka import KafkaCluster
    from streams.kafka import connection
    from streams.topics import create_topics

    node = stack.enter_context(KafkaCluster())
    click.echo(f"embedded Kafka at {node.bootstrap}", err=True)
    kafka = msgspec.structs.replace(settings.kafka, bootstrap=node.bootstrap)
    asyncio.run(create_topics(connection(kafka), kafka.partitions, 1, kafka.topic_suffix))
    return msgspec.structs.replace(settings, kafka=kafka)


def _run(settings: Settings, roles: tuple[str, ...]) -> int:
    """Run the app to its end; the exit status is 0 after a stop that was asked for."""
    gc.disable()  # collections were a fifth of start-up
    import faust
    import uvloop

    from detectors.detections import DetectionError
    from streams import garbage, logs
    from streams.app import ROLES, build

    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        app = build(settings, [role for role in ROLES if not roles or role in roles])
    except DetectionError as error:
        raise click.ClickException(f"detections:\n{error}") from error
    garbage.settle()
    worker = faust.Worker(app, loop=loop, quiet=True, override_logging=False, redirect_stdouts=False)
    worker.spinner = None  # it writes to standard output, where the alerts are, terminal or not
    logs.setup(settings.log)
    if settings.log.level != "DEBUG":  # at INFO these tell of every service and every poll
        for library in ("aiokafka", "faust", "mode"):
            logging.getLogger(library).setLevel(logging.WARNING)
    try:
        worker.execute_from_commandline()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
