"""The texts that novelty learns from: what `detectors.corpus` finds, and folders named on the command line."""

import gzip
import html
import json
import random
import re
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from detectors.corpus import natural_texts

PASSAGE_CHARS = 4_000
_GROUP_CHARS = 1_200_000  # of one folder: a corpus is many small voices, not one loud one
_RUN = 12  # words in a row that two texts do not share by chance
_ROWS = 4_000  # of one table of prompts: thousands of one template teach one thing
_WORD = re.compile(r"\w+")
_MARKUP = re.compile(r"<(script|style)[^>]*>.*?</\1>|<[^>]+>", re.S)
_ROFF = re.compile(r"^[.'].*$|\\f[BIRPCW]|\\[&|c]|\\\(..|\\\[[^\]]*\]|\\.", re.MULTILINE)


class Document(NamedTuple):
    """A natural text. Texts of one `group` are alike and never on both sides of a split."""

    kind: str
    group: str
    text: str


def _cut(text: str) -> Iterator[str]:
    for begin in range(0, len(text), PASSAGE_CHARS):
        passage = text[begin : begin + PASSAGE_CHARS].strip()
        if len(passage) >= 15:
            yield passage


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield from (item for item in value if isinstance(item, str))


def _examples(task: dict[str, Any], rng: random.Random) -> Iterator[str]:
    """Prompts of a BIG-bench task: its input, at times with prefix, choices or answer."""
    prefix = task.get("task_prefix") or ""
    examples = list(task.get("examples") or [])
    rng.shuffle(examples)
    for example in examples:
        text = next(_strings(example.get("input")), "")
        if rng.random() < 0.25:
            text = prefix + text
        choices = example.get("target_scores")
        if isinstance(choices, dict) and rng.random() < 0.25:
            text += "".join(f"\n{chr(65 + n)}. {choice}" for n, choice in enumerate(islice(choices, 6)))
        elif rng.random() < 0.3:
            text += "\n" + next(_strings(example.get("target")), "")
        yield text


_ASKED = ("input", "sample", "query", "prompt", "question")  # where sets of prompts keep what is asked


def _rows(path: Path, rng: random.Random) -> Iterator[str]:
    """Prompts of JSONL rows: a text, or the last message of a conversation, at times with the first before it."""
    lines = path.read_text("utf-8", "ignore").splitlines()[:_ROWS]
    rng.shuffle(lines)
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        asked = next((row[name] for name in _ASKED if row.get(name)), "") if isinstance(row, dict) else ""
        if isinstance(asked, str):
            yield asked
        elif isinstance(asked, list):
            said = [item["content"] for item in asked if isinstance(item, dict) and "content" in item]
            texts = [text for text in said if isinstance(text, str)]
            yield (
                "\n".join([*texts[:1], *texts[-1:]])
                if len(texts) > 1 and rng.random() < 0.4
                else "".join(texts[-1:])
            )


def _database(path: Path) -> Iterator[str]:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        for (table,) in connection.execute("select name from sqlite_master where type = 'table'").fetchall():
            for row in connection.execute(f'select * from "{table}" order by rowid'):  # noqa: S608 - a file of ours
                yield max((item for item in row if isinstance(item, str)), key=len, default="")


def _read(path: Path, rng: random.Random) -> Iterator[str]:
    """Texts of one file, by its name; nothing of a file that is no text."""
    name = path.name
    if name.endswith(".sqlite3"):
        yield from islice(_database(path), 0, None, 2)
    elif name == "task.json":
        task = json.loads(path.read_text("utf-8", "ignore"))
        yield from _examples(task, rng) if isinstance(task, dict) else ()
    elif name.endswith(".jsonl"):
        yield from _rows(path, rng)
    elif name.endswith((".html", ".htm", ".page")):
        yield from _cut(re.sub(r"\s{2,}", "\n", html.unescape(_MARKUP.sub(" ", path.read_text("utf-8", "ignore")))))
    elif name.endswith(".dict.dz"):
        entries = re.split(r"\n(?=\S)|\n\n", gzip.decompress(path.read_bytes()).decode("utf-8", "ignore"))
        rng.shuffle(entries)
        yield from entries
    elif name.endswith(".gz") and "/man/" in str(path):
        yield from _cut(_ROFF.sub("", gzip.decompress(path.read_bytes()).decode("utf-8", "ignore")))
    elif name.endswith((".yml", ".yaml")):
        yield from path.read_text("utf-8", "ignore").replace("- ", "").split("\n")
    elif name.endswith((".py", ".md", ".rst", ".txt")):
        yield from _cut(path.read_text("utf-8", "ignore"))
    elif "fortunes" in str(path) and not path.suffix:
        yield from path.read_text("utf-8", "ignore").split("\n%\n")


def read_folder(root: Path, seed: int = 0) -> Iterator[Document]:
    """Every text under `root` that is of a known kind; a group is a folder just under it."""
    rng = random.Random(seed)
    kind = root.name
    left: dict[str, int] = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink()):
        group = f"{kind}/{path.relative_to(root).parts[0]}"
        most = 20 * _GROUP_CHARS if path.suffix in (".sqlite3", ".dz") else _GROUP_CHARS
        for text in _read(path, rng):
            if left.setdefault(group, most) <= 0:
                break
            left[group] -= len(text)
            if len(text) >= 15:
                yield Document(kind, group, text[:PASSAGE_CHARS])


def documents(folders: Iterable[Path], seed: int = 0) -> list[Document]:
    """All texts to learn from: those of the machine, then those of the folders; reproducible by the seed."""
    # A passage of this machine's own text is a group by itself, by its first characters.
    found = [Document(kind, f"{kind}/{text[:80]}", text) for kind, text in natural_texts(seed)]
    for folder in folders:
        found += read_folder(folder, seed)
    return found


def without(found: Iterable[Document], kept_back: Iterable[str]) -> list[Document]:
    """The documents that share no run of `_RUN` words with a text that is kept back for evaluation.

    Public sets of prompts are made of each other: leaving a source out by its name leaves its copies in.
    """
    runs = {run for text in kept_back for run in _runs(text)}
    return [document for document in found if runs.isdisjoint(_runs(document.text))] if runs else list(found)


def _runs(text: str) -> Iterator[int]:
    words = _WORD.findall(text.lower())
    return (hash(tuple(words[at : at + _RUN])) for at in range(len(words) - _RUN + 1))
