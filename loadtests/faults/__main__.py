"""`make faults`: each fault under steady load with attacks in it, then random combinations; a row of figures each.

Every row has topics, a database and workers of its own, on three real brokers and the real engine. Exit status 1:
in some row something was lost, doubled or wrong, or attacks were not found.
"""

import secrets
import sys
from pathlib import Path

import click

from loadtests.faults import page, report
from loadtests.faults.catalogue import CATALOGUE
from loadtests.faults.report import Row
from loadtests.faults.run import ground, plan, run

COMBINATIONS = 5
SCRIPT_SECONDS = 900.0  # longer than any fault and the recovery from it


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(CATALOGUE)), help="These alone; all by default.")
@click.option("--combinations", default=COMBINATIONS, show_default=True, help="Random ones after them.")
@click.option("--seed", type=int, help="Of combinations and moments; drawn and printed by default.")
@click.option("--rate", default=60.0, show_default=True, help="Requests a second.")
@click.option("--short", is_flag=True, help="Each fault for seconds only; hostile records by the thousand.")
@click.option("--page", "only_page", is_flag=True, help="Only write docs/faults.md from the report.")
@click.option("--out", default=".faults", show_default=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--docs", default="docs", show_default=True, type=click.Path(file_okay=False, path_type=Path))
def main(
    only: tuple[str, ...], combinations: int, seed: int | None, rate: float, short: bool, only_page: bool,
    out: Path, docs: Path,
) -> None:  # fmt: skip
    """Do harm, and write OUT/report.json: what is in it of other faults stays."""
    if only_page:
        page.write(out, docs)
        return
    seed = secrets.randbelow(1 << 31) if seed is None else seed
    click.echo(f"seed {seed}")
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    with ground(rate, SCRIPT_SECONDS, seed) as stage:
        for name, fault in plan(only or list(CATALOGUE), combinations, seed):
            row = run(stage, name, fault, seed, short)
            rows.append(row)
            report.write(out / report.NAME, rows)
            click.echo(_line(row))
    sys.exit(not all(row.good for row in rows))


def _line(row: Row) -> str:
    wrong = f"lost {row.lost}, duplicated {row.duplicated}, unexpected {row.unexpected}, wrong {row.wrong_state}"
    well = "never well again" if row.recovery_s is None else f"well after {row.recovery_s} s"
    parts = [
        "ok " if row.good else "BAD", f"{row.fault:24} {row.requests:6} requests", wrong, well,
        f"recall {row.recall:.2f}", f"repeated {row.repeated}", f"restarts {row.restarts}", *row.details,
    ]  # fmt: skip
    return "; ".join(parts)


if __name__ == "__main__":
    main()
