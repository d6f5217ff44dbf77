"""The architecture, kept: which way imports point, and what may stand at the top."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "schemas": {"schemas"},
    "detectors": {"schemas", "detectors"},
    "streams": {"schemas", "detectors", "streams"},
}
NO_IO = {"aiokafka", "faust", "clickhouse_connect", "chdb", "aiohttp", "mode"}
HEAVY = {"torch", "sentence_transformers", "litellm", "sklearn", "lightgbm", "transformers"}
HEAVY_ALLOWED = {"streams/gateways/litellm.py"}


def imported(path: Path, top_level_only: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_point_one_way(package: str) -> None:
    ours = {"schemas", "detectors", "streams", "loadtests", "tests"}
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imported(path)
        if name in ours - ALLOWED[package] and not _is_command(path)
    }
    assert not wrong


def _is_command(path: Path) -> bool:
    """Commands of training and evaluation may reach the generators."""
    return path.parent == ROOT / "streams" / "commands"


@pytest.mark.parametrize("package", ["schemas", "detectors"])
def test_judgement_has_no_io(package: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imported(path)
        if name in NO_IO
    }
    assert not wrong


def test_nothing_heavy_is_imported_at_the_top_of_a_module() -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for package in ALLOWED
        for path in modules(package)
        for name in imported(path, top_level_only=True)
        if name in HEAVY and str(path.relative_to(ROOT)) not in HEAVY_ALLOWED
    }
    assert not wrong
