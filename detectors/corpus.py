"""Natural text and code that any development machine has: what `normal` is learned from.

Sources, all read in place and never copied: Python's standard library (PSF-2.0) and the packages installed
beside this one (sources, METADATA and documentation under each package's own licence, all open source),
botocore's API documentation (Apache-2.0), manual pages and translation catalogues where the system has them
(under each program's licence), and, if POINTSMAN_DATA is set up, the routing prompts of RouteLLM's MMLU and
GSM8K tables (Apache-2.0, MIT). Only counts leave: no text of a source is in an artefact.
"""

import csv
import gettext
import gzip
import json
import os
import random
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

PASSAGE_CHARS = 2_000

_ROFF = re.compile(r"^[.'].*$|\\f[BIRPCW]|\\[&|c]|\\\(..|\\\[[^\]]*\]|\\.", re.MULTILINE)
_TAG = re.compile(r"<[^>]+>")


def data_path() -> Path | None:
    """The test data's folder: POINTSMAN_DATA, or `../shared/data` beside the project; None if there is none."""
    path = Path(os.environ.get("POINTSMAN_DATA") or Path(__file__).parents[1] / ".." / "shared" / "data")
    return path.resolve() if path.is_dir() else None


def _cut_up(text: str) -> Iterator[str]:
    for begin in range(0, len(text), PASSAGE_CHARS):
        passage = text[begin : begin + PASSAGE_CHARS].strip()
        if len(passage) >= 40:
            yield passage


def _shuffled(paths: Iterable[Path], rng: random.Random) -> list[Path]:
    found = sorted(paths)
    rng.shuffle(found)
    return found


def _files(root: Path, suffixes: tuple[str, ...], rng: random.Random) -> Iterator[str]:
    for path in _shuffled((p for p in root.rglob("*") if p.name.endswith(suffixes)), rng):
        # Test data and generated tables are huge and alike: a few passages of a file say what it has to say.
        if path.is_file() and path.stat().st_size < 400_000:
            yield from islice(_cut_up(path.read_text("utf-8", "ignore")), 6)


def _python(rng: random.Random) -> Iterator[str]:
    yield from _files(Path(sysconfig.get_path("purelib")), (".py",), rng)


def _library(rng: random.Random) -> Iterator[str]:
    yield from _files(Path(sys.base_prefix) / "lib" / f"python3.{sys.version_info.minor}", (".py", ".txt"), rng)


def _documents(rng: random.Random) -> Iterator[str]:
    yield from _files(Path(sysconfig.get_path("purelib")), ("METADATA", ".md", ".rst", ".txt", ".html"), rng)


def _other_code(rng: random.Random) -> Iterator[str]:
    yield from _files(Path(sysconfig.get_path("purelib")), (".js", ".hpp", ".json", ".yaml", ".sql", ".pyx"), rng)


def _api_documents(rng: random.Random) -> Iterator[str]:
    for path in _shuffled(
        (Path(sysconfig.get_path("purelib")) / "botocore" / "data").rglob("service-2.json.gz"), rng
    ):
        service = json.loads(gzip.decompress(path.read_bytes()))
        shapes = [*service.get("operations", {}).values(), *service.get("shapes", {}).values()]
        texts = [_TAG.sub(" ", shape["documentation"]) for shape in shapes if shape.get("documentation")]
        yield from _cut_up("\n".join(texts[:60]))


def _manuals(rng: random.Random) -> Iterator[str]:
    for path in _shuffled(Path("/usr/share/man").rglob("*.gz"), rng):
        if path.is_file():
            try:
                text = gzip.decompress(path.read_bytes()).decode("utf-8", "ignore")
            except (OSError, EOFError):
                continue
            yield from islice(_cut_up(_ROFF.sub("", text)), 4)


def _translations(rng: random.Random) -> Iterator[str]:
    for path in _shuffled(Path("/usr/share/locale").rglob("*.mo"), rng):
        try:
            with path.open("rb") as file:
                catalogue = gettext.GNUTranslations(file)
        except (OSError, ValueError, IndexError):  # the last: a header that gettext cannot read
            continue
        found = [text for text in vars(catalogue)["_catalog"].values() if isinstance(text, str) and len(text) > 25]
        yield from islice(_cut_up("\n".join(rng.sample(found, min(60, len(found))))), 2)


def _prompts(rng: random.Random) -> Iterator[str]:
    root = data_path()
    rows = []
    for path in sorted((root / "routing").rglob("*.csv")) if root else ():
        with path.open(newline="", encoding="utf-8") as file:
            rows += [row["prompt"] for row in csv.DictReader(file) if row.get("prompt")]
    rng.shuffle(rows)
    yield from rows


# kind -> (reader, characters at most): prose outweighs code, as it does in prompts
_SOURCES: dict[str, tuple[Callable[[random.Random], Iterator[str]], int]] = {
    "python": (_python, 8_000_000),
    "library": (_library, 3_000_000),
    "documents": (_documents, 8_000_000),
    "other_code": (_other_code, 3_000_000),
    "api_documents": (_api_documents, 8_000_000),
    "manuals": (_manuals, 12_000_000),
    "translations": (_translations, 5_000_000),
    "prompts": (_prompts, 12_000_000),
}


def natural_texts(seed: int = 0, part: float = 1.0) -> Iterator[tuple[str, str]]:
    """Passages (kind, text) of every source at hand, up to each one's share; the order is fixed by the seed.

    `part`: of the 59 million characters that the shares allow, 0..1.
    """
    for kind, (read, most) in _SOURCES.items():
        left = most * part
        for text in read(random.Random(f"{seed}/{kind}")):
            yield kind, text
            left -= len(text)
            if left <= 0:
                break


def benign_texts() -> Iterator[str]:
    """What a trigger must not match: natural text at hand, and the benign prompts of POINTSMAN_DATA."""
    yield from (text for _, text in natural_texts(part=0.1))
    root = data_path()
    if root and (root / "benign_prompts.jsonl").is_file():
        with (root / "benign_prompts.jsonl").open(encoding="utf-8") as file:
            yield from (json.loads(line)["text"] for line in file)
