"""What the commands that talk to Kafka share."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from aiokafka.errors import KafkaError

from streams.commands.config import load_settings
from streams.kafka import NoSuchTopicError
from streams.settings import Kafka
from streams.topics import TopicError

T = TypeVar("T")

json_option = click.option("--json", "as_json", is_flag=True, help="As JSON.")


def print_json(value: Any) -> None:
    """What `--json` prints: indented, bytes as base64."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def on_brokers(path: Path | None, work: Callable[[Kafka], Awaitable[T]]) -> T:
    """Run `work` with the settings' brokers; its Kafka errors end the command with their message."""
    kafka = load_settings(path).kafka
    if not kafka.bootstrap:
        raise click.ClickException("no brokers: set kafka.bootstrap or POINTSMAN_KAFKA_BOOTSTRAP")

    async def run() -> T:
        return await work(kafka)

    try:
        return asyncio.run(run())
    except (TopicError, NoSuchTopicError, KafkaError) as error:
        raise click.ClickException(str(error)) from error
