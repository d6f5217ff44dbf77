"""`pointsman eval`: what the prompt detectors find in a file of labelled prompts."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("cases", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--json",
    "out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the report goes ('-': standard output).",
)
def command(cases: Path, out: Path | None) -> None:
    """Judge CASES (JSONL rows `family`, `text`, `label` 0|1) at the shipped thresholds, by family and detector."""
    from detectors.evaluation import CasesError, evaluate, read_cases
    from detectors.panel import build_panel
    from detectors.thresholds import Thresholds

    try:
        report = evaluate(build_panel(Thresholds()).detectors, read_cases(cases))
        if out and str(out) != "-":
            out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    except (CasesError, OSError) as error:
        raise click.ClickException(str(error)) from error
    for rate in report["too_few_benign_for"]:
        click.echo(
            f"Warning: {report['n_benign']} benign rows say nothing of {float(rate):.1%} false positives: it takes"
            f" at least {1 / float(rate):,.0f}. Recall there is against the highest benign score.",
            err=True,
        )
    if str(out) == "-":
        click.echo(json.dumps(report, indent=1))
        return
    click.echo(f"benign: {report['benign_flagged']} of {report['n_benign']} flagged")
    click.echo(f"{'family':32} {'n':>7} {'flagged':>8} {'at 0.1 %':>9} {'at 1 %':>8}")
    for name, found in report["families"].items():
        recall = found["recall"]
        flagged = found["flagged"] / found["n"]
        click.echo(f"{name:32} {found['n']:7} {flagged:8.1%} {recall['0.001']:9.1%} {recall['0.01']:8.1%}")
    click.echo(f"{report['us_per_prompt']:.0f} µs of CPU a prompt")
