"""`pointsman topics`: create the topics, or check those that exist."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
from aiokafka.errors import KafkaError

from streams.commands.config import config_option, load_settings
from streams.kafka import connection
from streams.settings import Kafka
from streams.topics import TopicError, check_topics, create_topics

_JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.group()
def command() -> None:
    """Create the topics of schemas/topics.py, or check those that exist."""


@command.command()
@config_option
@_JSON
def create(path: Path | None, as_json: bool) -> None:
    """Create what is missing; fails where an existing topic is not as it must be."""
    created = _on_brokers(
        path,
        lambda kafka: create_topics(connection(kafka), kafka.partitions, kafka.replication, kafka.topic_suffix),
    )
    if as_json:
        click.echo(json.dumps({"created": created}))
        return
    click.echo("\n".join(created) or "nothing to create")


@command.command()
@config_option
@_JSON
def check(path: Path | None, as_json: bool) -> None:
    """Exit with 0 if all topics are there and as they must be, else with 1 and what is wrong with each."""
    problems = _on_brokers(
        path, lambda kafka: check_topics(connection(kafka), kafka.partitions, kafka.topic_suffix)
    )
    if as_json:
        click.echo(json.dumps({"problems": problems}))
    else:
        click.echo("\n".join(problems) or "all topics are as they must be")
    if problems:
        raise SystemExit(1)


def _on_brokers(path: Path | None, work: Callable[[Kafka], Awaitable[list[str]]]) -> list[str]:
    kafka = load_settings(path).kafka
    if not kafka.bootstrap:
        raise click.ClickException("no brokers: set kafka.bootstrap or POINTSMAN_KAFKA_BOOTSTRAP")

    async def run() -> list[str]:
        return await work(kafka)

    try:
        return asyncio.run(run())
    except (TopicError, KafkaError) as error:
        raise click.ClickException(str(error)) from error
