"""`pointsman triggers`: the catalogue's life: import or grow, review, approve; and who did it, and why."""

import asyncio
import hashlib
import importlib
import json
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import click
import msgspec
from aiokafka.errors import KafkaError

from detectors.catalogue import CatalogueError
from schemas.codec import InvalidRecord
from schemas.triggers import Trigger
from streams.catalogues import CatalogueStore, FileStore, TopicStore
from streams.commands.config import load_settings
from streams.kafka import connection

Kind = Literal["lexical", "semantic", "both"]
Position = Literal["any", "prefix", "suffix"]
Direction = Literal["up", "down"]
State = Literal["proposed", "approved", "rejected", "retired"]

T = TypeVar("T")

SHOWN_CHARS = 160  # of a text that is printed for a person
SHOWN_HITS = 3


@dataclass(frozen=True, slots=True)
class Where:
    """Which catalogue a command works on."""

    file: Path | None
    config: Path | None
    bootstrap: str

    def store(self) -> CatalogueStore:
        """The file if one is named, else the topic."""
        if self.file:
            return FileStore(self.file)
        kafka = load_settings(self.config).kafka
        if self.bootstrap:
            kafka = msgspec.structs.replace(kafka, bootstrap=self.bootstrap)
        if not kafka.bootstrap:
            raise click.ClickException("no catalogue: give --file, --bootstrap, or set POINTSMAN_KAFKA_BOOTSTRAP")
        return TopicStore(connection(kafka), kafka.topic_suffix)


@click.group()
@click.option("--file", type=click.Path(dir_okay=False, path_type=Path), help="JSONL catalogue, instead of Kafka.")
@click.option("--config", type=click.Path(path_type=Path), help="YAML file (default: POINTSMAN_CONFIG).")
@click.option("--bootstrap", default="", help="Brokers, instead of the settings'.")
@click.pass_context
def command(context: click.Context, file: Path | None, config: Path | None, bootstrap: str) -> None:
    """Keep the catalogue of known triggers. Nothing is matched before it has been reviewed and approved."""
    context.obj = Where(file, config, bootstrap)


_json = click.option("--json", "as_json", is_flag=True, help="As JSON lines.")
_kind = click.option("--kind", type=click.Choice(get_args(Kind)), default="lexical", show_default=True)
_position = click.option("--position", type=click.Choice(get_args(Position)), default="any", show_default=True)
_direction = click.option("--direction", type=click.Choice(get_args(Direction)), default="up", show_default=True)
_reference = click.option(
    "--reference",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='JSONL of benign texts, {"text": ...} a line (default: natural text of this machine and POINTSMAN_DATA).',
)


@command.command()
@click.option("--review", type=click.Choice(get_args(State)), help="Only those in this state.")
@_json
@click.pass_obj
def ls(where: Where, review: State | None, as_json: bool) -> None:
    """List the entries."""
    held = _run(where.store().read()).view()
    _print([held[name] for name in sorted(held) if review in (None, held[name].review)], as_json)


@command.command("import")
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_kind
@_position
@_direction
@click.option("--provenance", required=True, help="Where the texts come from.")
@click.option("--licence", required=True, help="Under which licence they may be kept.")
@_json
@click.pass_obj
def import_(
    where: Where, source: Path, kind: Kind, position: Position, direction: Direction,
    provenance: str, licence: str, as_json: bool,
) -> None:  # fmt: skip
    """Propose the texts of SOURCE: one a line, or JSONL with a `text` field."""
    entries = [
        _proposal("imported", text, kind, position, direction, provenance, licence) for text in _texts(source)
    ]
    _print(_run(_propose(where.store(), entries)), as_json)


@command.command()
@click.option(
    "--router", default="loadtests.router:DifficultyRouter.load", show_default=True,
    help="MODULE:NAME of what returns a router, an object with score(texts).",
)  # fmt: skip
@click.option("--sampling", type=click.Choice(["uniform", "frequency", "wordlike"]), default="uniform")
@_direction
@click.option("--position", type=click.Choice(["prefix", "suffix"]), default="prefix", show_default=True)
@click.option("--tokens", type=click.IntRange(4, 60), default=10, show_default=True)
@click.option("--count", type=click.IntRange(1, 1000), default=1, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@_json
@click.pass_obj
def grow(
    where: Where, router: str, sampling: str, direction: Direction, position: Position, tokens: int,
    count: int, seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Grow gadgets against a router and propose them."""
    from detectors.triggers import grow as growing

    score = resolve(router)().score
    entries = []
    for number in range(seed, seed + count):
        grown = growing.grow(score, sampling, direction, tokens, number)  # type: ignore[arg-type]  # a click.Choice
        gain = f"score {grown.start_score:.2f} to {grown.score:.2f} in {grown.queries} queries"
        provenance = f"grown against {router}, {sampling}, seed {number}: {gain}"
        entries.append(_proposal("grown", grown.text, "lexical", position, direction, provenance, "as the project"))
    _print(_run(_propose(where.store(), entries)), as_json)


@command.command()
@click.argument("names", nargs=-1)
@_reference
@_json
@click.pass_obj
def review(where: Where, names: tuple[str, ...], reference: Path | None, as_json: bool) -> None:
    """Measure entries (all that are proposed, if none is named): their bits, and benign texts that hold them."""
    store = where.store()
    held = _run(store.read()).view()
    chosen = [_named(held, name) for name in names] or [e for e in held.values() if e.review == "proposed"]
    measured = _measure(chosen, reference)
    _run(store.append([entry for entry, *_ in measured]))
    for entry, problem, note, hits in measured:
        _report(entry, problem, note, hits, as_json)


@command.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--reviewer", required=True, help="Who answers for it.")
@click.option("--reason", required=True, help="Why; kept with the entry.")
@_reference
@_json
@click.pass_obj
def approve(
    where: Where, names: tuple[str, ...], reviewer: str, reason: str, reference: Path | None, as_json: bool
) -> None:
    """Approve entries, after measuring them again; all are refused if one is refused."""
    store = where.store()
    held = _run(store.read()).view()
    measured = _measure([_named(held, name) for name in names], reference)
    refused = [found for found in measured if found[1]]
    for entry, problem, note, hits in refused or measured:
        _report(entry, problem, note, hits, as_json)
    if refused:
        raise click.ClickException(f"refused: {', '.join(entry.trigger_id for entry, *_ in refused)}")
    _run(store.append([_decided(entry, "approved", reviewer, reason) for entry, *_ in measured]))


def _closing(name: str, state: State, text: str) -> None:
    @command.command(name, help=text)
    @click.argument("names", nargs=-1, required=True)
    @click.option("--reviewer", required=True, help="Who answers for it.")
    @click.option("--reason", required=True, help="Why; kept with the entry.")
    @_json
    @click.pass_obj
    def close(where: Where, names: tuple[str, ...], reviewer: str, reason: str, as_json: bool) -> None:
        store = where.store()
        held = _run(store.read()).view()
        entries = [_decided(_later(_named(held, name)), state, reviewer, reason) for name in names]
        _run(store.append(entries))
        _print(entries, as_json)


_closing("reject", "rejected", "Reject proposed entries.")
_closing("retire", "retired", "Take approved entries out of use.")


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except (CatalogueError, InvalidRecord, KafkaError, OSError) as error:
        raise click.ClickException(f"catalogue: {error}") from error


def resolve(name: str) -> Callable[[], Any]:
    """What MODULE:NAME names; the router's code is the user's, so it is looked up and never imported by us."""
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise click.ClickException(f"no router {name}: {error}") from error
    return found  # type: ignore[no-any-return]


def _texts(source: Path) -> Iterable[str]:
    for number, line in enumerate(source.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        if source.suffix != ".jsonl":
            yield line.strip()
            continue
        try:
            text = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise click.ClickException(f"{source}:{number}: no JSON object with a text") from error
        yield str(text)


def _proposal(
    origin: str, text: str, kind: Kind, position: Position, direction: Direction, provenance: str, licence: str
) -> Trigger:
    return Trigger(
        trigger_id=f"{origin}-{hashlib.sha256(text.encode()).hexdigest()[:12]}",
        version=1, text=text, kind=kind, position=position, direction=direction,
        provenance=provenance[:256], licence=licence[:256], updated_at=datetime.now(UTC),
    )  # fmt: skip


async def _propose(store: CatalogueStore, entries: Sequence[Trigger]) -> list[Trigger]:
    """Append what is new: the same text is not proposed twice, whatever became of it."""
    held = (await store.read()).view()
    new = {entry.trigger_id: entry for entry in entries if entry.trigger_id not in held}
    await store.append(list(new.values()))
    return list(new.values())


def _named(held: Any, name: str) -> Trigger:
    if name not in held:
        raise click.ClickException(f"no such trigger: {name}")
    entry: Trigger = held[name]
    return entry


def _later(entry: Trigger, **changes: Any) -> Trigger:
    return msgspec.structs.replace(entry, version=entry.version + 1, updated_at=datetime.now(UTC), **changes)


def _decided(entry: Trigger, state: State, reviewer: str, reason: str) -> Trigger:
    return msgspec.structs.replace(entry, review=state, reviewer=reviewer, reason=reason)


def _measure(entries: Sequence[Trigger], reference: Path | None) -> list[tuple[Trigger, str, str, list[str]]]:
    """Each entry with its measures, why it must not be approved, what to know, and benign texts that hold it."""
    from detectors.corpus import benign_texts
    from detectors.thresholds import Thresholds
    from detectors.triggers.review import Reviewer

    texts = list(_texts(reference) if reference else benign_texts())
    reviewer = Reviewer(texts, Thresholds())
    measured = []
    for entry in entries:
        found = reviewer.review(entry)
        later = _later(entry, bits=round(found.bits, 1), benign_hits=len(found.hits))
        measured.append((later, found.refusal, found.warning, [texts[i] for i in found.hits]))
    return measured


def _report(entry: Trigger, problem: str, note: str, hits: Sequence[str], as_json: bool) -> None:
    if as_json:
        measured = {"trigger_id": entry.trigger_id, "bits": entry.bits, "benign_hits": entry.benign_hits}
        click.echo(json.dumps({**measured, "refusal": problem, "warning": note, "texts": hits[:SHOWN_HITS]}))
        return
    said = f"refused: {problem}" if problem else note or "good"
    click.echo(f"{entry.trigger_id}  {entry.bits:.0f} bits  {said}")
    for text in hits[:SHOWN_HITS]:
        click.echo(f"    in: {_short(text)}")


def _print(entries: Sequence[Trigger], as_json: bool) -> None:
    for entry in entries:
        if as_json:
            click.echo(msgspec.json.encode(entry).decode())
        else:
            facts = f"{entry.trigger_id}  v{entry.version}  {entry.review}  {entry.kind}  {entry.direction}"
            click.echo(f"{facts}  {_short(entry.text)}")


def _short(text: str) -> str:
    """One printable line: a catalogue's texts are an attacker's."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= SHOWN_CHARS else line[: SHOWN_CHARS - 3] + "..."
