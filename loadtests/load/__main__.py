"""`make load SCENARIO=steady`: start everything, run the scenario headless, judge it. Several, or `all`: each.

Locust's csv and html and our `SCENARIO.json` go to `.load`. Exit status 1: something was lost, doubled or wrong,
an event was not acknowledged, or a planted attack was not named.
"""

import secrets
import sys
from pathlib import Path

import click
import msgspec

from loadtests.load import page, saturation
from loadtests.load.report import Report
from loadtests.load.run import Plan, ground, run
from loadtests.load.scenarios import SCENARIOS


@click.command()
@click.argument("scenarios", nargs=-1, type=click.Choice([*SCENARIOS, "all"]))
@click.option("--gateways", type=int, help="Locust users of 50 requests a second each; the scenario's by default.")
@click.option("--seconds", type=int, help="Of load; the scenario's by default.")
@click.option("--seed", type=int, help="Drawn and printed by default.")
@click.option("--attack-ratio", type=float, help="Planted requests an ordinary one; the scenario's by default.")
@click.option("--page", "only_page", is_flag=True, help="Only write docs/load-figures.md from the reports.")
@click.option("--out", default=".load", show_default=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--docs", default="docs", show_default=True, type=click.Path(file_okay=False, path_type=Path))
def main(
    scenarios: tuple[str, ...], gateways: int | None, seconds: int | None, seed: int | None,
    attack_ratio: float | None, only_page: bool, out: Path, docs: Path,
) -> None:  # fmt: skip
    """Put load on the whole service."""
    if only_page:
        page.write(out, docs)
        return
    seed = secrets.randbelow(1 << 20) if seed is None else seed
    click.echo(f"seed {seed}", err=True)
    out.mkdir(parents=True, exist_ok=True)
    short = [name for name, each in SCENARIOS.items() if not each.is_long]
    names = short if "all" in scenarios else scenarios or ["steady"]
    failed = False
    with ground() as where:
        for name in names:
            scenario = SCENARIOS[name]
            plan = Plan(gateways or scenario.gateways, seconds or scenario.seconds, seed, attack_ratio)
            found, raw = run(where, name, plan, out)
            (out / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
            if name == "saturation":
                saturation.write(saturation.curve(raw.generated, plan), out / "curve.json")
            _say(found)
            failed |= bool(found.problems)
    sys.exit(failed)


def _say(found: Report) -> None:
    click.echo(f"{found.scenario}: {found.requests:,} requests, {found.requests_per_s:,.1f}/s")
    for label, times in (("verdict", found.verdict_ms), ("alert", found.alert_ms), ("visible", found.visible_ms)):
        if times is not None:
            click.echo(f"  event to {label:8} p50 {times.p50:,.0f}  p95 {times.p95:,.0f}  p99 {times.p99:,.0f} ms")
    recall = "-" if found.recall is None else f"{found.recall:.3f}"
    click.echo(f"  recall {recall}, false alerts {found.false_alerts or 0}, most lag {found.service.most_lag}")
    used, by = found.service, found.generator
    click.echo(f"  drained after {used.drained_s} s; {used.cpu_us_per_request:,.0f} µs of CPU a request")
    behind = "SATURATED" if by.saturated else "kept pace"
    click.echo(f"  generator {behind}: {by.late_p99_ms} ms late (p99), {by.cpu_share:.0%} of a core")
    for problem in found.problems:
        click.echo(f"  ✗ {problem}")
    if not found.problems:
        click.echo("  ✓ nothing lost, nothing double, state exact")


if __name__ == "__main__":
    main()
