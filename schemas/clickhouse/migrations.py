"""The numbered migrations beside this file: `NNNN_name.sql`, a part `-- up` and a part `-- down`."""

import re
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

_NAME = re.compile(r"(\d{4})_(\w+)\.sql")
_PARTS = re.compile(r"^-- up$(.*)^-- down$(.*)", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)
_END = re.compile(r";[ \t]*$", re.MULTILINE)


class Migration(NamedTuple):
    """Statements in order. Each must bear being run again: a migration that broke off is run from its start."""

    version: int
    name: str
    checksum: str  # of the whole file
    up: tuple[str, ...]
    down: tuple[str, ...]


def load(folder: Path = Path(__file__).parent) -> list[Migration]:
    """Read all migrations, by number.

    Raises:
        ValueError: a file without both parts, or numbers that are not 1, 2, 3, ...
    """
    migrations = [_read(path) for path in sorted(folder.glob("[0-9]*.sql"))]
    if [migration.version for migration in migrations] != list(range(1, len(migrations) + 1)):
        raise ValueError(f"migrations in {folder} are not numbered 1 to {len(migrations)}")
    return migrations


def _read(path: Path) -> Migration:
    text = path.read_text(encoding="utf-8")
    name, parts = _NAME.fullmatch(path.name), _PARTS.search(text)
    if name is None or parts is None:
        raise ValueError(f"{path} is not NNNN_name.sql with the lines `-- up` and `-- down`")
    checksum = blake2b(text.encode(), digest_size=16).hexdigest()
    return Migration(int(name[1]), name[2], checksum, _statements(parts[1]), _statements(parts[2]))


def _statements(part: str) -> tuple[str, ...]:
    """Split at each `;` that ends a line."""
    pieces = (piece.strip() for piece in _END.split(_COMMENT.sub("", part)))
    return tuple(piece for piece in pieces if piece)
