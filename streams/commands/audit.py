"""`pointsman audit`: the queue of audit tickets, answers of people to them, judges that answer by themselves."""

import sys
from pathlib import Path
from typing import BinaryIO, TypeVar

import click
import msgspec
from aiokafka import AIOKafkaProducer

from schemas.audits import AuditTicket
from streams.commands.brokers import json_option, on_brokers, print_json
from streams.commands.config import config_option, load_settings
from streams.judges import Answer, Answerer, HttpJudge, LocalJudge, judge_all, label_of, open_tickets, publish
from streams.kafka import connection
from streams.notifiers.text import printable, timestamp
from streams.settings import Kafka

T = TypeVar("T")

_judge = click.option("--judge", required=True, help="Name of who answers: canaries measure each by it.")


class _Line(Answer, kw_only=True):
    """A line of a batch file."""

    ticket_id: str


@click.group()
def command() -> None:
    """Answer audit tickets: is this request safe? `unsafe` means that the detector should have flagged it."""


@command.command("next")
@click.option("--count", type=click.IntRange(1, 100_000), default=1, show_default=True, help="So many at most.")
@config_option
@json_option
def next_(count: int, path: Path | None, as_json: bool) -> None:
    """Show the oldest tickets that are open. With --json a list of them; `label --file` takes it with labels."""
    tickets = on_brokers(path, open_tickets)
    if as_json:
        print_json(tickets[:count])
        return
    for ticket in tickets[:count]:
        click.echo(_text(ticket))
    click.echo(f"{len(tickets)} open" if tickets else "no open tickets")


@command.command()
@click.argument("ticket_id", required=False)
@click.argument("answer", required=False, type=click.Choice(["safe", "unsafe", "unknown"]))
@click.option(
    "--file",
    type=click.File("rb"),
    help='Instead: {"ticket_id": ..., "label": ..., "reason": ...}, one a line or a list.',
)
@click.option("--reason", default="", help="Why; the history does not keep it.")
@_judge
@config_option
@json_option
def label(
    ticket_id: str | None, answer: str | None, file: BinaryIO | None, reason: str, judge: str,
    path: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Answer a ticket, or those of a file. Nothing is sent if one of them is not open."""
    if file is not None and not ticket_id:
        lines = _lines(file.read())
    elif ticket_id and answer and file is None:
        lines = [msgspec.convert({"ticket_id": ticket_id, "label": answer, "reason": reason}, _Line)]
    else:
        raise click.UsageError("give a ticket and its answer, or --file")

    async def send(kafka: Kafka) -> None:
        tickets = {ticket.ticket_id: ticket for ticket in await open_tickets(kafka)}
        if wrong := [line.ticket_id for line in lines if line.ticket_id not in tickets]:
            raise click.ClickException(f"not open: {', '.join(map(printable, wrong))}")
        async with AIOKafkaProducer(**connection(kafka), enable_idempotence=True) as producer:
            for line in lines:
                await publish(producer, label_of(tickets[line.ticket_id], line, judge), kafka.topic_suffix)

    on_brokers(path, send)
    if as_json:
        print_json({"answered": [line.ticket_id for line in lines]})
    else:
        click.echo(f"answered {len(lines)}")


@command.command()
@click.option("--url", default="", help='Posts {"ticket": ...} there; the answer is {"label": ..., "reason": ...}.')
@click.option("--classifier", default="", metavar="MODULE:NAME", help="Calls this with each ticket instead.")
@click.option("--once", is_flag=True, help="End when there are no more tickets.")
@_judge
@config_option
@json_option
def serve(url: str, classifier: str, once: bool, judge: str, path: Path | None, as_json: bool) -> None:
    """Answer tickets as they come, by a service or by a classifier. Of several running, one does the work."""
    if bool(url) == bool(classifier):
        raise click.UsageError("give either --url or --classifier")
    sys.path.insert(0, "")  # a module of the user's, beside them
    try:
        ask: Answerer = HttpJudge(url) if url else LocalJudge.named(classifier)
    except (ImportError, AttributeError) as error:
        raise click.ClickException(f"no classifier {classifier}: {error}") from error
    answered = on_brokers(path, lambda kafka: judge_all(kafka, ask, judge, once))
    if as_json:
        print_json({"answered": answered})
    else:
        click.echo(f"answered {answered}")


@command.command()
@config_option
@json_option
def judges(path: Path | None, as_json: bool) -> None:
    """Show how good each judge is, by its answers to canaries, as of the feedback lane's last checkpoint."""
    from streams.chain import state  # numpy and the detectors
    from streams.lanes.feedback import rules

    allowed = rules(load_settings(path))
    records = on_brokers(path, lambda kafka: state(kafka, allowed)).answers.judges
    if as_json:
        print_json({
            name: {**msgspec.to_builtins(r), "sensitivity": r.sensitivity, "measured": r.measured, "fit": r.fit}
            for name, r in sorted(records.items())
        })  # fmt: skip
        return
    for name, r in sorted(records.items()):
        known = f"finds at least {r.sensitivity:.0%}" if r.measured else "not measured"
        click.echo(
            f"{printable(name)}: {r.labels} labels; of canaries {r.caught}/{r.unsafe} unsafe found,"
            f" {r.passed}/{r.safe} safe passed; {known}{'' if r.fit else '; NOT LISTENED TO'}"
        )
    if not records:
        click.echo("no judge has answered")


def _lines(text: bytes) -> list[_Line]:
    """A batch file's: a list, or one a line."""
    if text.lstrip().startswith(b"["):
        return _decoded(text, list[_Line], "the list")
    numbered = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    return [_decoded(line, _Line, f"line {number}") for number, line in numbered]


def _decoded(text: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError as error:
        raise click.ClickException(f"{what}: {error}") from error


def _text(ticket: AuditTicket) -> str:
    route = f", {ticket.router_name} to {ticket.route}" if ticket.route else ""
    return printable(
        f"{ticket.ticket_id}  request {ticket.request_id} of {ticket.principal_hash} ({ticket.tenant_id}){route}"
        f"  {ticket.detector} {ticket.score:.6g}, threshold {ticket.threshold:.6g}"
        f"  until {timestamp(ticket.expires_at)}"
    )
