"""docs/load-figures.md and its plot, made from the reports: `python -m loadtests.load --page`."""

from pathlib import Path

import msgspec

from loadtests.load.report import Report, Times
from loadtests.load.saturation import WITH_IT_MS, Curve
from loadtests.load.scenarios import SCENARIOS

PLOT = "load-saturation.svg"


def write(out: Path, docs: Path) -> None:
    """Write the page into the folder `docs`, of the reports there are in `out`."""
    reports = [
        msgspec.json.decode((out / f"{name}.json").read_bytes(), type=Report)
        for name in SCENARIOS
        if (out / f"{name}.json").is_file()
    ]
    lines = [
        "# Load: the last run's figures",
        "",
        "Written by `python -m loadtests.load --page` from `.load/*.json`, which `make load SCENARIO=all` makes;",
        "[load.md](load.md) says what each scenario is. Brokers, ClickHouse, workers and the generator share the",
        "machine's cores with whatever else runs: the figures say what holds, not how fast a cluster is. *Told*:",
        "how long after its first request each planted attack was. A stream detector flags the requests that tell,",
        "not all.",
        "",
        "| scenario | requests/s | verdict p50 / p99 ms | alert p99 ms | in ClickHouse p99 ms | told after s |"
        " its requests flagged | false alerts | most lag | drained s | lost, doubled, wrong | generator late ms |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        *(_row(report) for report in reports),
    ]
    if reports:
        about = reports[0].machine
        lines += ["", f"{about.cpus} cores, load {about.load_before} in the minute before, Python {about.python}."]
    by_name = {report.scenario: report for report in reports}
    if "hot_key" in by_name:
        lines += _fairness(by_name["hot_key"])
    if "soak" in by_name:
        lines += _soak(by_name["soak"])
    if (out / "curve.json").is_file():
        found = msgspec.json.decode((out / "curve.json").read_bytes(), type=Curve)
        _plot(found, docs / PLOT)
        lines += _curve(found)
    (docs / "load-figures.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _row(report: Report) -> str:
    def p99(times: Times | None) -> str:
        return "-" if times is None else f"{times.p99:,.0f}"

    verdict = report.verdict_ms
    wrong = report.reckoning
    cells = (
        report.scenario,
        f"{report.requests_per_s:,.0f}",
        "-" if verdict is None else f"{verdict.p50:,.0f} / {verdict.p99:,.0f}",
        p99(report.alert_ms),
        p99(report.visible_ms),
        _told(report),
        "-" if report.recall is None else f"{report.recall:.0%}",
        str(sum(report.false_alerts.values())),
        f"{report.service.most_lag.get('detect', 0):,}",
        f"{report.service.drained_s}",
        f"{wrong.lost}, {wrong.duplicated + wrong.unexpected}, {wrong.wrong_state}",
        f"{report.generator.late_p99_ms:,.0f}",
    )
    return f"| {' | '.join(cells)} |"


def _told(report: Report) -> str:
    """How soon after its first request each planted attack was told."""
    after = [attack.first_alert_s for attack in report.attacks]
    return ", ".join("**never**" if seconds is None else f"{seconds:,.1f}" for seconds in after) or "-"


def _fairness(report: Report) -> list[str]:
    before, during = report.verdict_ms_by_half
    if before is None or during is None:
        return []
    return [
        "",
        "## One caller's flood",
        "",
        f"p99 of the others' verdicts: {before.p99:,.0f} ms before it, {during.p99:,.0f} ms while it lasts"
        f" ({during.p99 / before.p99 - 1:+.0%}; at most +20% is the aim, on a machine that does nothing else).",
    ]


def _soak(report: Report) -> list[str]:
    grown = ", ".join(f"{what.removesuffix('_mb')} {share:+.1%}" for what, share in report.service.growth.items())
    return [
        "",
        "## Soak",
        "",
        f"{report.requests:,} requests in {report.seconds:,.0f} s. The last quarter over the one before: {grown}.",
    ]


def _curve(found: Curve) -> list[str]:
    return [
        "",
        "## Saturation",
        "",
        f"The knee is at **{found.knee_per_s:,.0f} requests/s**: the highest step with p99 within"
        f" {WITH_IT_MS:,.0f} ms and nothing piling up.",
        "",
        "| offered/s | judged/s | p50 ms | p99 ms |",
        "|---|---|---|---|",
        *(f"| {s.offered_per_s:,.0f} | {s.judged_per_s:,.0f} | {s.p50_ms:,.0f} | {s.p99_ms:,.0f} |"
          for s in found.steps),
        "",
        f"![Offered against judged]({PLOT})",
    ]  # fmt: skip


def _plot(found: Curve, path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "pointsman"  # the same figures make the same file
    from matplotlib import pyplot

    figure, (rates, times) = pyplot.subplots(2, 1, figsize=(7, 5), sharex=True)
    offered = [step.offered_per_s for step in found.steps]
    rates.plot(offered, [step.judged_per_s for step in found.steps], "o-", color="#3b6ea5", label="judged")
    rates.plot(offered, offered, "--", color="#999999", label="offered")
    rates.set_ylabel("requests a second")
    times.semilogy(offered, [step.p99_ms for step in found.steps], "o-", color="#b5533c", label="p99")
    times.semilogy(offered, [step.p50_ms for step in found.steps], "o-", color="#3b6ea5", label="p50")
    times.axhline(WITH_IT_MS, color="#999999", linestyle="--")
    times.set_ylabel("event to verdict, ms")
    times.set_xlabel("offered requests a second")
    for axes in (rates, times):
        if found.knee_per_s:
            axes.axvline(found.knee_per_s, color="#5b8a3c", linewidth=1, label="knee")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
