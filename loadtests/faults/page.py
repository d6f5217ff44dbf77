"""docs/faults.md, made from the report: `python -m loadtests.faults --page`."""

from pathlib import Path

from loadtests.faults import report
from loadtests.faults.catalogue import CATALOGUE
from loadtests.faults.report import Row


def write(out: Path, docs: Path) -> None:
    """Write the page into the folder `docs`, of the rows there are in `out`."""
    rows = report.read(out / report.NAME)
    order = [*CATALOGUE, *(row.fault for row in rows)]
    rows.sort(key=lambda row: order.index(row.fault))
    lines = [
        "# Faults: the last runs' figures",
        "",
        "Written by `python -m loadtests.faults --page` from `.faults/report.json`, which `make faults` makes;",
        "[load.md](load.md) says how. Brokers, ClickHouse, workers and traffic share the machine's cores with",
        "whatever else runs there: what counts is that nothing is lost, doubled or wrong; how soon all is well",
        "says little. `again` is what was published twice with the same id and content: it replaces itself.",
        "",
        f"{sum(row.good for row in rows)} of {len(rows)} rows are as they must be.",
        "",
        "| fault | what happens | form | requests | lost, doubled, unexplained, wrong state | recall | well after s"
        " | again | dead letters | restarts | seed |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(_line(row) for row in rows),
    ]
    (docs / "faults.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _line(row: Row) -> str:
    about = [CATALOGUE[name].about for name in row.fault.split(" + ")]
    cells = (
        f"`{row.fault}`",
        about[0] if len(about) == 1 else "all at once",
        "short" if row.short else "long",
        f"{row.requests:,}",
        f"{row.lost}, {row.duplicated}, {row.unexpected}, {row.wrong_state}" + ("" if row.good else " **✗**"),
        f"{row.recall:.2f}",
        "never" if row.recovery_s is None else f"{row.recovery_s}",
        f"{row.repeated:,}",
        f"{row.dead_letters:,}",
        str(row.restarts),
        str(row.seed),
    )
    return f"| {' | '.join(cells)} |"
