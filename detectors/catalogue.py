"""The trigger catalogue: approved entries, with a version; built whole and swapped whole."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from schemas.triggers import Trigger

SHIPPED = Path(__file__).with_name("artefacts") / "catalogue.jsonl"

_decoder = msgspec.json.Decoder(Trigger)


class CatalogueError(ValueError):
    """A catalogue that cannot be read: the message names the place."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The approved triggers, ordered by id. `version` grows with every record that went into it."""

    triggers: tuple[Trigger, ...]
    version: int

    def __len__(self) -> int:
        return len(self.triggers)


class Records:
    """All records of a catalogue by id, as a compacted topic keeps them: the last of each key holds."""

    def __init__(self) -> None:
        self._last: dict[str, Trigger] = {}
        self._version = 0

    def put(self, record: Trigger) -> None:
        """Take over a record. One with a lower version than what is held came late, and changes nothing."""
        held = self._last.get(record.trigger_id)
        if held is None or record.version >= held.version:
            self._last[record.trigger_id] = record
        self._version += 1

    def remove(self, trigger_id: str) -> None:
        """Take over a tombstone."""
        self._last.pop(trigger_id, None)
        self._version += 1

    def view(self) -> Mapping[str, Trigger]:
        """The held records by id, whatever their review says."""
        return self._last

    def catalogue(self, version: int | None = None) -> Catalogue:
        """The approved ones. `version`: given, as a topic's offset, or the number of records taken over."""
        held = list(self._last.values())  # in one step: workers build this in a thread while records go on coming
        approved = sorted((record for record in held if record.review == "approved"), key=lambda r: r.trigger_id)
        return Catalogue(tuple(approved), self._version if version is None else version)


def records_of(entries: Iterable[Trigger]) -> Records:
    """Records from entries, in the order in which they were written."""
    records = Records()
    for entry in entries:
        records.put(entry)
    return records


def read_records(path: Path) -> Records:
    """Read a JSONL catalogue, one Trigger a line; lines may be appended, the last of an id holds.

    Raises:
        CatalogueError: a line is not a Trigger.
        OSError: the file cannot be read.
    """
    records = Records()
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if line.strip():
            try:
                records.put(_decoder.decode(line))
            except msgspec.DecodeError as error:
                raise CatalogueError(f"{path}:{number}: {error}") from error
    return records


def append_records(path: Path, entries: Iterable[Trigger]) -> None:
    """Append entries to a JSONL catalogue: its history is its audit trail."""
    lines = b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)
    with path.open("ab") as file:
        file.write(lines)


def shipped() -> Catalogue:
    """The catalogue that comes with Pointsman."""
    return read_records(SHIPPED).catalogue()
