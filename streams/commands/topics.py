"""`pointsman topics`: create the topics, or check those that exist."""

import json
from pathlib import Path

import click

from streams.commands.brokers import json_option, on_brokers
from streams.commands.config import config_option
from streams.kafka import connection
from streams.topics import check_topics, create_topics


@click.group()
def command() -> None:
    """Create the topics of schemas/topics.py, or check those that exist."""


@command.command()
@config_option
@json_option
def create(path: Path | None, as_json: bool) -> None:
    """Create what is missing; fails where an existing topic is not as it must be."""
    created = on_brokers(
        path,
        lambda kafka: create_topics(connection(kafka), kafka.partitions, kafka.replication, kafka.topic_suffix),
    )
    if as_json:
        click.echo(json.dumps({"created": created}))
        return
    click.echo("\n".join(created) or "nothing to create")


@command.command()
@config_option
@json_option
def check(path: Path | None, as_json: bool) -> None:
    """Exit with 0 if all topics are there and as they must be, else with 1 and what is wrong with each."""
    problems = on_brokers(path, lambda kafka: check_topics(connection(kafka), kafka.partitions, kafka.topic_suffix))
    if as_json:
        click.echo(json.dumps({"problems": problems}))
    else:
        click.echo("\n".join(problems) or "all topics are as they must be")
    if problems:
        raise SystemExit(1)
