"""`pointsman simulate`: what rules do under attack, before they are trusted with real thresholds."""

from pathlib import Path

import click


@click.group()
def command() -> None:
    """Simulations, seeded."""


@command.command()
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), required=True,
              help="Write the rows here.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(1), default=20, show_default=True)
@click.option("--days", type=click.IntRange(6), help="Default: 60.")
@click.option("--labels", type=click.IntRange(1), help="Audits a day. Default: 2,000.")
@click.option("--made-up", is_flag=True, help="Made-up scores even where POINTSMAN_DATA has prompts.")
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True)
def feedback(out: Path, seeds: int, days: int | None, labels: int | None, made_up: bool, processes: int) -> None:
    """Attack the feedback that moves thresholds: the ratchet beside fixed thresholds, re-fit, ACI and PID.

    Takes a few minutes of two cores. `python -m loadtests.feedback.page OUT` makes the docs' page of it.
    """
    import msgspec

    from loadtests.feedback.simulation import Plan, simulate
    from loadtests.feedback.world import DAYS, LABELS_PER_DAY

    plan = Plan(
        seeds=seeds,
        days=days or DAYS,
        labels_per_day=labels or LABELS_PER_DAY,
        made_up=made_up,
        processes=processes,
    )
    rows = simulate(plan, lambda name: click.echo(name, err=True))
    out.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n")
    click.echo(f"{'attack':20} {'miss risk: end':>14} {'most':>7} {'benign flagged':>14} {'of the oracle':>13}")
    for row in rows:
        if row.method == "ratchet":
            click.echo(
                f"{row.attack:20} {row.miss_risk_end:14.2%} {row.miss_risk_max:7.2%} {row.benign_flagged:14.2%}"
                f" {row.over_oracle:13.2f}"
            )
