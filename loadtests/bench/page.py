"""docs/benchmarks.md and its plots, made from a report: `python -m loadtests.bench --page`."""

from pathlib import Path

from loadtests.bench import ratchet
from loadtests.bench.report import Report
from loadtests.bench.rounds import Lane

RATES, STAGES = "benchmarks-rates.svg", "benchmarks-stages.svg"


def write(report: Report, docs: Path) -> None:
    """Write the page and its plots into the folder."""
    _plot_rates(report, docs / RATES)
    _plot_stages(report, docs / STAGES)
    (docs / "benchmarks.md").write_text(_page(report), encoding="utf-8")


def _page(report: Report) -> str:
    about, history = report.machine, report.history
    prompts = "real prompts" if about.real_prompts else "generated prompts"
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m loadtests.bench --page` from `.bench/report.json`, which `make bench` measures.",
        "Ratios travel from machine to machine, absolute figures do not: both sides of each ratio are measured in",
        f"turns in one run, on {about.cpus} cores that the three brokers share, Python {about.python}, {prompts};",
        f"the machine's load was {about.load_before} in the minute before.",
        "",
        "| figure | measured |",
        "|---|---|",
        f"| detect lane over the design built literally, requests/s | **{report.detect_over_literal:,.1f}** |",
        f"| the literal design's CPU a request over the detect lane's | {report.literal_cpu_over_detect:,.1f} |",
        f"| detect lane over the bare loop ({', '.join(report.ceiling.parts)}) | {report.detect_over_ceiling} |",
        *_more(report),
        f"| checkpoints' share of the worker's CPU | {report.checkpoint_share:.1%} |",
        f"| history rows/s over a bare column insert into chdb | {history.over_bare_insert} |",
        f"| guard, a lone caller's call: median | {report.guard.p50_ms} ms |",
        f"| guard, a lone caller's call: 99th percentile | {report.guard.p99_ms} ms |",
        f"| guard, 32 callers at once, requests/s | {report.guard.requests_per_s_32:,.0f} |",
        f"| ratchet, one scope, labels for a second of CPU | {report.ratchet.labels_per_s:,.0f} |",
        f"| ratchet, a fleet of {ratchet.TENANTS} tenants, labels for a second of CPU"
        f" | {report.ratchet.nested_labels_per_s:,.0f} |",
        f"| ratchet, state of a scope | {report.ratchet.state_bytes:,} bytes |",
        f"| start-up of a worker to ready | {report.startup_s} s |",
        "",
        "| | requests/s | lowest to highest | events/s | CPU a request |",
        "|---|---|---|---|---|",
        _row("detect lane, one worker", report.detect),
        _row("design built literally, one worker", report.literal),
        f"| bare loop, one thread | {report.ceiling.requests_per_s:,.0f} | {min(report.ceiling.rounds):,.0f} to"
        f" {max(report.ceiling.rounds):,.0f} | | {1e6 / report.ceiling.requests_per_s:,.0f} µs |",
        "",
        f"![Requests a second]({RATES})",
        "",
        "*Detect lane*: a `pointsman serve --role detect` as shipped, on a three-broker Kafka with replication 3",
        "and two in-sync replicas: request, route and outcome of each request decoded and joined, all detectors,",
        "verdicts published, state checkpointed. *Built literally*: one Faust topic agent, one event at a time;",
        "MiniLM and FAISS a prompt, River models a principal, one ClickHouse insert an event",
        "(`loadtests/bench/literal.py`). *Bare loop*: in memory, no Kafka, no join, no detector that has state.",
        "",
        "## Where the time goes",
        "",
        "Wall time by stage, as shares of a run (stages overlap, and waiting for brokers counts):",
        "",
        "| design | " + " | ".join(report.detect.stages) + " |",
        "|---|" + "---|" * len(report.detect.stages),
        "| detect | " + " | ".join(f"{share:.0%}" for share in report.detect.stages.values()) + " |",
        "",
        "| design | " + " | ".join(report.literal.stages) + " |",
        "|---|" + "---|" * len(report.literal.stages),
        "| literal | " + " | ".join(f"{share:.0%}" for share in report.literal.stages.values()) + " |",
        "",
        f"![Judging, µs a request]({STAGES})",
        "",
        "Judging alone, in process, one thread, µs a request (its route and outcome with it):",
        "",
        "| stage | µs |",
        "|---|---|",
        *(f"| {stage} | {took} |" for stage, took in report.judge_us_per_request.items()),
        f"| all | {sum(report.judge_us_per_request.values()):.1f} |",
        "",
        "Decoding an event: " + ", ".join(f"{kind} {took} µs" for kind, took in report.codec.items()) + ".",
        "",
        "With " + ", ".join(f"{name} {number}" for name, number in about.versions.items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def _more(report: Report) -> list[str]:
    """Rows of what more of something costs, of a large partition's recovery, and of alerts under load."""
    scale, held, alerts = report.scale, report.recovery, report.alert_latency_ms
    rows = [
        f"| CPU a request, {sides.many:,} {name} over {sides.few:,} | {sides.ratio} |"
        for name, sides in (
            ("principals", scale.principals), ("triggers", scale.triggers), ("characters a prompt", scale.chars),
            ("settled requests held (joins alone)", scale.settled),
        )
    ]  # fmt: skip
    if report.cpu_per_request.two_workers is not None:
        rows.append(f"| CPU a request, two workers over one | {report.cpu_per_request.two_workers} |")
    if held is not None:
        rows += [
            f"| start on a partition of {held.keys:,} keys, beyond an empty one's | {held.recovery_s} s |",
            f"| resident memory with it and {held.triggers:,} triggers | {held.memory_bytes / 1e9:.2f} GB |",
        ]
    if alerts is not None and alerts.p99 is not None:
        knee = f"the knee is at {alerts.knee_per_s:,.0f}" if alerts.knee_per_s else "no knee was found"
        where = f"at {alerts.offered_per_s:,.0f} requests/s ({knee})"
        rows += [
            f"| event to alert {where}: median | {alerts.p50:,.0f} ms |",
            f"| event to alert {where}: 99th percentile of {alerts.alerts} | {alerts.p99:,.0f} ms |",
        ]
    return rows


def _row(name: str, lane: Lane) -> str:
    return (
        f"| {name} | {lane.requests_per_s:,.0f} | {lane.requests_per_s_min:,.0f} to {lane.requests_per_s_max:,.0f}"
        f" | {lane.events_per_s:,.0f} | {lane.cpu_us_per_request:,.0f} µs |"
    )


def _plot_rates(report: Report, path: Path) -> None:
    names = ["built literally", "detect lane", "bare loop"]
    rates = [report.literal.requests_per_s, report.detect.requests_per_s, report.ceiling.requests_per_s]
    _bars(names, rates, "requests a second (log)", path, log=True)


def _plot_stages(report: Report, path: Path) -> None:
    stages = list(report.judge_us_per_request.items())
    _bars([stage for stage, _ in stages], [took for _, took in stages], "µs a request", path)


def _bars(names: list[str], values: list[float], label: str, path: Path, log: bool = False) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "pointsman"  # the same figures make the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 0.6 + 0.32 * len(names)))
    bars = axes.barh(names, values, color="#3b6ea5", log=log)
    axes.bar_label(bars, fmt="{:,.1f}" if max(values) < 1_000 else "{:,.0f}", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
