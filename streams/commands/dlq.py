"""`pointsman dlq`: what could not be judged, and giving it another try."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
import msgspec
from aiokafka import AIOKafkaProducer

from schemas.codec import UNREADABLE_HEADERS, InvalidRecord, read_dead_letter
from schemas.deadletters import DeadLetter, InvalidReason
from schemas.topics import DEADLETTERS, FEEDBACK, named
from streams.commands.brokers import json_option, on_brokers, print_json
from streams.commands.config import config_option
from streams.kafka import connection, read_to_end
from streams.notifiers.text import inert, timestamp
from streams.settings import Kafka

F = TypeVar("F", bound=Callable[..., Any])


def _filters(function: F) -> F:
    for option in (
        click.option("--topic", default="", help="Only from this topic (its full name)."),
        click.option("--stage", default="", help="Only from this stage, as decode or judge."),
        click.option("--reason", default="", type=click.Choice(["", *get_args(InvalidReason)]), show_choices=False,
                     help="Only for this reason (schemas/deadletters.py)."),
        click.option("--id", "ids", multiple=True, help="Only this letter; may be given again."),
    ):  # fmt: skip
        function = option(function)
    return function


@click.group()
def command() -> None:
    """List dead letters, show one, publish some again."""


@command.command("ls")
@config_option
@_filters
@json_option
def list_letters(path: Path | None, as_json: bool, **wanted: Any) -> None:
    """List dead letters, oldest first, without their content."""
    letters = _letters(path, **wanted)
    if as_json:
        print_json([_without_content(letter) for letter in letters])
        return
    for letter in letters:
        click.echo(_line(letter))
    if not letters:
        click.echo("no dead letters")


@command.command()
@click.argument("letter_id")
@config_option
@click.option("--content", is_flag=True, help="Key, value and headers too: they may hold a prompt's text.")
@json_option
def show(letter_id: str, path: Path | None, content: bool, as_json: bool) -> None:
    """Show the dead letter whose id begins with LETTER_ID."""
    letters = [letter for letter in _letters(path) if letter.letter_id.startswith(letter_id)]
    if not letters:
        raise click.ClickException(f"no dead letter {letter_id!r}")
    if len(letters) > 1:
        raise click.ClickException(f"{len(letters)} dead letters begin with {letter_id!r}: give more of the id")
    (letter,) = letters
    if as_json:
        print_json(letter if content else _without_content(letter))  # bytes as base64
        return
    click.echo(_line(letter))
    if content:
        click.echo(f"key    {_printable(letter.key)}")
        for name, value in letter.headers:
            click.echo(f"header {_printable(name.encode())}: {_printable(value)}")
        click.echo(f"value  {_printable(letter.value)}")


@command.command()
@config_option
@_filters
@click.option("--all", "everything", is_flag=True, help="All of them, where no filter is given.")
@click.option("--dry-run", is_flag=True, help="Say what would be published, and do not.")
@json_option
def retry(path: Path | None, everything: bool, dry_run: bool, as_json: bool, **wanted: Any) -> None:
    """Publish the original bytes, key and headers again, to the partition that they came from.

    Not those of the feedback topic: whoever wrote the label, report or decision writes another.
    The letters stay; events that were judged before are known by their ids.
    """
    if not everything and not any(wanted.values()):
        raise click.UsageError("which ones? give a filter, or --all")
    letters = _letters(path, **wanted)
    lost = [letter for letter in letters if not _is_whole(letter)]
    relayed = [
        letter for letter in letters if letter.topic.startswith(FEEDBACK.name)
    ]  # the lane skips what it knows
    letters = [letter for letter in letters if letter not in lost and letter not in relayed]
    if letters and not dry_run:
        on_brokers(path, lambda kafka: _publish(kafka, letters))
    if as_json:
        print_json({"dry_run": dry_run, "published": [letter.letter_id for letter in letters],
                     "without_bytes": [letter.letter_id for letter in lost],
                    "relayed": [letter.letter_id for letter in relayed]})  # fmt: skip
        return
    for letter in letters:
        click.echo(_line(letter))
    click.echo(f"{'would publish' if dry_run else 'published'} {len(letters)} again")
    if lost:
        click.echo(f"{len(lost)} cannot be: they are without all their bytes, which are only in the original topic")
    if relayed:
        click.echo(
            f"{len(relayed)} cannot be: the feedback lane takes a relayed record once; write it at its source"
        )


def _is_whole(letter: DeadLetter) -> bool:
    """Whether it has the record's bytes: not of what the client could not read, nor of what was too large."""
    return tuple(letter.headers) != UNREADABLE_HEADERS and letter.size == len(letter.value)


def _letters(
    path: Path | None, ids: Sequence[str] = (), reason: str = "", stage: str = "", topic: str = ""
) -> list[DeadLetter]:
    """Those wanted, each once (a lane that restarts may write one again), oldest first."""

    async def read(kafka: Kafka) -> list[DeadLetter]:
        letters: dict[str, DeadLetter] = {}
        async for record in read_to_end(connection(kafka), named(DEADLETTERS, kafka.topic_suffix), must_exist=True):
            try:
                letter = read_dead_letter(record)
            except InvalidRecord as error:
                click.echo(f"skipped: {error}", err=True)
                continue
            if (
                (not ids or letter.letter_id in ids)
                and reason in ("", letter.reason)
                and stage in ("", letter.stage)
                and topic in ("", letter.topic)
            ):
                letters[letter.letter_id] = letter
        return sorted(letters.values(), key=lambda at: (at.time, at.topic, at.partition, at.offset))

    return on_brokers(path, read)


async def _publish(kafka: Kafka, letters: Sequence[DeadLetter]) -> None:
    async with AIOKafkaProducer(**connection(kafka), enable_idempotence=True, max_request_size=8 << 20) as producer:
        for letter in letters:
            await producer.send_and_wait(
                letter.topic,
                letter.value,
                key=letter.key or None,
                partition=letter.partition,
                headers=letter.headers,
            )


def _without_content(letter: DeadLetter) -> DeadLetter:
    return msgspec.structs.replace(letter, key=b"", value=b"", headers=[])


def _line(letter: DeadLetter) -> str:
    field = f" at {inert(letter.field)}" if letter.field else ""
    detail = f": {_printable(letter.detail.encode())}" if letter.detail else ""
    return (
        f"{letter.letter_id} {timestamp(letter.time)} {inert(letter.topic)}[{letter.partition}]@{letter.offset}"
        f" {inert(letter.stage)} {letter.reason}{field}{detail} ({letter.size} bytes)"
    )


def _printable(content: bytes) -> str:
    r"""Text for a terminal: what is not printable, or no UTF-8, as `\x..` and the like."""
    text = content.decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
