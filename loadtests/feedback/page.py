"""docs/feedback-simulation.md and its plots: `python -m loadtests.feedback.page ROWS ERRORS`.

ROWS is what `pointsman simulate feedback --json` wrote, ERRORS what `loadtests.feedback.errors --json` said.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from loadtests.feedback import methods, world
from loadtests.feedback.errors import CORRUPTED, Errors
from loadtests.feedback.simulation import BURN_IN, ROUTERS, Row

MOST, DAILY = "feedback-most.svg", "feedback-daily.svg"
SHOWN = ("none", "suppress", "quiet, then burst", "cry wolf", "sudden shift", "judge fooled")
COLOURS = {
    "ratchet": "#1b5e20", "fixed on rows": "#9e9e9e", "fixed on audits": "#cfcfcf", "re-fit on rows": "#ef6c00",
    "re-fit on audits": "#ffb74d", "ACI on rows": "#1565c0", "ACI on audits": "#64b5f6", "PID on rows": "#6a1b9a",
    "PID on audits": "#ba68c8",
}  # fmt: skip


def write(rows: Sequence[Row], errors: Sequence[Errors], docs: Path) -> None:
    """Write the page and its plots into the folder."""
    _plot_most(rows, docs / MOST)
    _plot_daily(rows, docs / DAILY)
    (docs / "feedback-simulation.md").write_text(_page(rows, errors), encoding="utf-8")


def _page(rows: Sequence[Row], errors: Sequence[Errors]) -> str:
    ours = [row for row in rows if row.method == "ratchet"]
    a_day = max(row.labels_used for row in ours) / world.DAYS
    low, high = world.BOUNDS
    lines = [
        "# Feedback under attack: the simulation",
        "",
        _text(
            "Written by `python -m loadtests.feedback.page` from what `pointsman simulate feedback --json` and"
            " `python -m loadtests.feedback.errors --json` measured."
        ),
        "",
        _text(
            f"A fleet of {world.PRINCIPALS} honest principals of {world.TENANTS} tenants for {world.DAYS} days;"
            f" {world.UNSAFE_SHARE:.0%} of its requests are"
            " unsafe. A router sends what scores at least a threshold to"
            f" a guarded route ({ROUTERS} routers in turn,"
            " trained on real prompts, scores on prompts that they were"
            " not trained on), and labels move the threshold. Miss risk is the true share of honest principals'"
            f" requests that are unsafe and pass, principals weighing equally. Allowed: alpha = {world.ALPHA:.0%},"
            f" delta = {world.DELTA:.0%}, epsilon = {world.EPSILON:.2%}."
        ),
        "",
        _text(
            f"- *Audits*, {a_day:,.0f} a day: a principal at"
            " random, one of its requests, a trusted judge of sensitivity"
            f" {world.SENSITIVITY} and specificity"
            f" {world.SPECIFICITY}, of which canaries have shown the bounds {low} and"
            f" {high}. The ratchet is moved by these."
        ),
        _text(
            "- *Rows*, as many: requests at random, labelled by whoever the outcome belongs to, which is what a"
            " feedback loop usually has. To the ratchet they are untrusted reports."
        ),
        "",
        _text(
            "Attackers know every rule. The usual methods are"
            " shown on rows and on audits. *Most* is the greatest of"
            f" any day after the first {BURN_IN:.0%} of the run, *worst* that of the worst seed. Means over"
            f" {ours[0].seeds} seeds, ± half a 95 % interval."
        ),
        "",
        "## The ratchet",
        "",
        *_OWN,
        *(_own(row) for row in ours if row.inside),
        "",
        _text(
            "The oracle is the loosest threshold within alpha, known without labels. The ratchet ends a little"
            " stricter: that is what being sure costs. *Down* counts untrusted steps too, each of which expires."
        ),
        "",
        "## Where the guarantee ends",
        "",
        *_OWN,
        *(_own(row) for row in ours if not row.inside),
        "",
        *map(_text, _ENDS),
        "",
        "## Beside what is usual",
        "",
        f"![Greatest miss risk]({MOST})",
        "",
        f"![Miss risk day by day]({DAILY})",
        "",
        "| attack | method | miss risk, end | most | days over alpha | benign flagged |",
        "|---|---|---|---|---|---|",
        *(_beside(row) for row in rows),
        "",
        _text(
            f"*Fixed*: set by the first {methods.WARM_UP:,} labels. *Re-fit*: daily, by the last {methods.WINDOW:,}"
            " labels. *ACI*: Gibbs and Candès 2021. *PID*:"
            " Angelopoulos, Candès and Tibshirani 2023. On audits ACI and"
            " PID keep the mean near alpha, as they promise, and so are above it about half of the time; on rows,"
            " whoever labels the rows sets the threshold."
        ),
        "",
        "## Errors at the boundary",
        "",
        _text(
            "The bet for a threshold whose miss risk is exactly"
            " alpha, looked at after every label; an error is ever"
            f' saying "safe". Corruption: {CORRUPTED:.0%} of'
            " alpha, by an adversary who sees the bets. At most delta is"
            " promised where it is allowed for."
        ),
        "",
        "| labels | runs that erred | share | 95 % interval |",
        "|---|---|---|---|",
        *(
            f"| {found.case} | {found.erred:,} of {found.runs:,} | {found.share:.2%} | {found.low:.2%} to"
            f" {found.high:.2%} |"
            for found in errors
        ),
    ]
    return "\n".join(lines) + "\n"


_OWN = (
    "| attack | what is done | miss risk, end | most | worst"
    " | benign flagged | over the oracle's | up | down | audits |",
    "|---|---|---|---|---|---|---|---|---|---|",
)
_ENDS = (
    "- *The judge.* Corruption beyond epsilon, or a judge"
    " that is fooled while its canaries are not, is believed: the"
    " miss risk follows what the judge cannot see. An"
    " attacker who owns the judge reaches the ceiling, one step a day,"
    " and no further; that is what the ceiling is for. One who wants everything flagged reaches the floor.",
    "- *Sybils.* Principals weigh equally, so that a share s"
    " of invented, benign ones lets the honest ones' risk come"
    " to alpha / (1 - s). Tie principals to who pays, and set alpha lower by the share that cannot be ruled out.",
    "- *Traffic that turns worse.* Evidence is about the"
    " past. The e-detector tightens when new misses have shown it,"
    " quickly for large changes, slowly for small ones; until then the risk is above alpha.",
    "- *Labels that come later because of what they say.* Bets are valid for any delay that does not depend on the"
    " label. A judge that takes longer over what is unsafe"
    " makes the first labels too good: take labels in the order"
    " of their tickets, or set `least_labels` well above what can be on its way.",
    "- *Volume.* Being sure of a risk near alpha takes about"
    " 2 alpha ln(1 / delta) / (alpha - risk)^2 labels: a small"
    " tenant does not have them, and only the fleet's threshold can loosen for it.",
)


def _text(paragraph: str) -> str:
    hanging = "  " if paragraph.startswith("- ") else ""
    return textwrap.fill(paragraph, 116, subsequent_indent=hanging, break_on_hyphens=False)


def _own(row: Row) -> str:
    return (
        f"| {row.attack} | {row.about} | {_risk(row.miss_risk_end, row.miss_risk_end_high)} |"
        f" {_risk(row.miss_risk_max, row.miss_risk_max_high)} | {row.miss_risk_max_worst:.2%} |"
        f" {_risk(row.benign_flagged, row.benign_flagged_high)} |"
        f" {row.over_oracle:.2f} ± {row.over_oracle_high - row.over_oracle:.2f} | {row.loosened:.1f} |"
        f" {row.tightened:.1f} | {row.labels_used:,.0f} |"
    )


def _beside(row: Row) -> str:
    name = f"**{row.method}**" if row.method == "ratchet" else row.method
    return (
        f"| {row.attack} | {name} | {_risk(row.miss_risk_end, row.miss_risk_end_high)} |"
        f" {_risk(row.miss_risk_max, row.miss_risk_max_high)} | {row.days_over_alpha:.1f} |"
        f" {_risk(row.benign_flagged, row.benign_flagged_high)} |"
    )


def _risk(mean: float, high: float) -> str:
    return f"{mean:.2%} ± {high - mean:.2%}"


def _plot_most(rows: Sequence[Row], path: Path) -> None:
    pyplot = _pyplot()
    attacks = list(dict.fromkeys(row.attack for row in rows))
    figure, axes = pyplot.subplots(figsize=(8, 0.8 + 0.34 * len(attacks)))
    for row in sorted(rows, key=lambda row: row.method == "ratchet"):
        ours = row.method == "ratchet"
        axes.errorbar(
            100 * row.miss_risk_max, attacks.index(row.attack),
            xerr=100 * (row.miss_risk_max_high - row.miss_risk_max), fmt="D" if ours else "o",
            color=COLOURS[row.method], markersize=7 if ours else 5,
            label=row.method if row.attack == attacks[0] else None,
        )  # fmt: skip
    axes.axvline(100 * world.ALPHA, color="black", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(attacks)), attacks)
    axes.invert_yaxis()
    axes.set_xlabel("greatest miss risk of any day after burn-in, %; dashed: alpha")
    axes.legend(fontsize=7, ncols=2)
    _save(figure, pyplot, path)


def _plot_daily(rows: Sequence[Row], path: Path) -> None:
    pyplot = _pyplot()
    figure, grid = pyplot.subplots(2, 3, figsize=(10, 5.5), sharex=True, sharey=True)
    for name, axes in zip(SHOWN, grid.flat, strict=True):
        for row in rows:
            if row.attack == name and not row.method.startswith("fixed"):
                ours = row.method == "ratchet"
                days = [100 * risk for risk in row.risk_by_day]
                axes.plot(days, color=COLOURS[row.method], linewidth=2.5 if ours else 1, label=row.method)
        axes.axhline(100 * world.ALPHA, color="black", linewidth=0.8, linestyle="--")
        axes.set_title(name, fontsize=9)
        axes.set_ylim(0, 4)
    grid[0, 0].legend(fontsize=6)
    figure.supxlabel("day", fontsize=9)
    figure.supylabel("miss risk, %", fontsize=9)
    _save(figure, pyplot, path)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "pointsman"  # the same figures make the same file
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, pyplot: Any, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)


@click.command()
@click.argument("rows", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("errors", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--docs", default="docs", show_default=True, type=click.Path(file_okay=False, path_type=Path))
def main(rows: Path, errors: Path, docs: Path) -> None:
    """Write the page and its plots into DOCS."""
    found = [msgspec.json.decode(line, type=Errors) for line in errors.read_bytes().splitlines()]
    write(msgspec.json.decode(rows.read_bytes(), type=list[Row]), found, docs)


if __name__ == "__main__":
    main()
