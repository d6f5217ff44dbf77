"""`make bench-compare OLD=... NEW=...`: what became worse between two report.json files.

Ratios are compared first of all: both of their sides come from one run, so that they travel between machines. Rates
and times are listed beside them, and mean something on one machine only.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

WORSE = 0.10  # of a figure, from which it is told
# Ends of figures of which more, or less, is better; others say what was measured (counts, versions).
_MORE = ("_over_literal", "_over_ceiling", "_over_detect", "_over_bare_insert", "_per_s", "_per_s_32")
_LESS = (".two_workers", "ratio", "_share", "_us", "_per_request", "_ms", "_s", "p50", "p99", "_bytes")
_PASSED_OVER = ("rounds", "machine", "stages", "offered_per_s")


def figures(report: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a report by its path."""
    for name, value in report.items():
        path = prefix + name
        if name in _PASSED_OVER:
            continue
        if isinstance(value, Mapping):
            yield from figures(value, f"{path}.")
        elif isinstance(value, int | float):
            yield path, float(value)


def worsening(path: str, old: float, new: float) -> float | None:
    """By what share a figure became worse (negative: better); None: nobody can say."""
    if old <= 0 or new <= 0 or not path.endswith(_MORE + _LESS):
        return None
    return old / new - 1 if path.endswith(_MORE) else new / old - 1


@click.command()
@click.argument("old", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("new", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(old: Path, new: Path) -> None:
    """List what changed by a tenth or more between OLD and NEW; exit status 1 when something became worse."""
    before, after = (dict(figures(json.loads(path.read_text("utf-8")))) for path in (old, new))
    worse = 0
    for path in sorted(before.keys() & after.keys()):
        by = worsening(path, before[path], after[path])
        if by is not None and abs(by) >= WORSE:
            worse += by > 0
            click.echo(f"{'worse ' if by > 0 else 'better'} {path:44} {before[path]:>14,.3f} -> {after[path]:,.3f}")
    for path in sorted(before.keys() ^ after.keys()):
        click.echo(f"{'gone  ' if path in before else 'new   '} {path}")
    click.echo(f"{worse} of {len(before.keys() & after.keys())} figures are worse by {WORSE:.0%} or more")
    sys.exit(bool(worse))


if __name__ == "__main__":
    main()
