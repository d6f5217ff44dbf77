"""What faults came to: `.faults/report.json`. A bad row stays until the same fault, form and seed run again."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

NAME = "report.json"
LEAST_RECALL = 0.9  # of catalogued triggers, mutated: what undisturbed runs reach


class Row(msgspec.Struct, kw_only=True):
    """One run. `lost`, `duplicated`, `unexpected` and `wrong_state` must be 0."""

    fault: str
    seed: int
    short: bool
    requests: int
    verdicts: int
    lost: int
    duplicated: int
    unexpected: int
    wrong_state: int
    repeated: int  # published again with the same id and content
    dead_letters: int
    restarts: int  # of workers
    recovery_s: float | None  # from the fault's end until all sent before it was judged and stored; None: never
    recall: float  # of the planted requests that were sent
    details: list[str]

    @property
    def good(self) -> bool:
        """Nothing lost, nothing wrong, attacks found, and well again by itself."""
        wrong = self.lost or self.duplicated or self.unexpected or self.wrong_state
        return not wrong and self.recall >= LEAST_RECALL and self.recovery_s is not None


def read(path: Path) -> list[Row]:
    """The rows there are; none where there is no file."""
    return msgspec.json.decode(path.read_bytes(), type=list[Row]) if path.is_file() else []


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write these rows, and keep those of other faults, forms and seeds that are there."""
    newest = {(row.fault, row.short, row.seed): row for row in [*read(path), *rows]}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(list(newest.values()))) + b"\n")
