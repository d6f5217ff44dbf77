"""`make bench`: both designs on one three-broker Kafka in turns, the ceiling, and what else has a target."""

import asyncio
import os
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import msgspec

from loadtests.bench import (
    backlog,
    ceiling,
    checkpointing,
    codec,
    guard,
    history,
    latency,
    page,
    ratchet,
    recovery,
    report,
    rounds,
    scale,
    stages,
)
from loadtests.machine import machine
from loadtests.prompts import data_dir
from streams.embedded.kafka import KafkaCluster


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rounds: int
    requests: int  # of our lane, a round
    literal_requests: int
    in_process: int  # requests of what is measured without Kafka
    history_requests: int
    long_requests: int  # with prompts of 200,000 characters
    triggers: int  # of the largest catalogue
    two_workers: bool = False
    keys: int = 0  # of a partition that is recovered; 0: none is
    load_seconds: int = 0  # of each of the two loads by which alerts are timed; 0: they are not


FULL = Plan(rounds=3, requests=30_000, literal_requests=400, in_process=20_000, history_requests=20_000,
            long_requests=400, triggers=100_000, two_workers=True, keys=1_000_000, load_seconds=60)  # fmt: skip
SHORT = Plan(rounds=1, requests=15_000, literal_requests=120, in_process=6_000, history_requests=4_000,
             long_requests=80, triggers=1_000, two_workers=True, keys=50_000)  # fmt: skip


async def run(plan: Plan, kafka: KafkaCluster, folder: Path, alerts: latency.Figures | None) -> report.Report:
    """Measure everything but `alerts`, which have a cluster of their own; logs of workers go to the folder."""
    load_before = os.getloadavg()[0]
    ours, literal = backlog.make(plan.requests), backlog.make(plan.literal_requests)
    sample = backlog.make(plan.in_process)
    prompts = ceiling.requests_of(sample.records)
    measured, parts = [], list[str]()
    for number in range(plan.rounds):
        click.echo(
            f"round {number + 1} of {plan.rounds}: detect lane, the design built literally, bare loop", err=True
        )
        detect = await rounds.run_round(kafka, ours, rounds.our_worker, folder)
        built = await rounds.run_round(kafka, literal, rounds.literal_worker, folder)
        bare, parts = ceiling.requests_per_s(prompts)
        measured.append((detect, built, bare))
    two_workers = None
    if plan.two_workers:
        two_workers = await rounds.run_round(kafka, ours, partial(rounds.our_worker, number=2), folder)
    click.echo("guard, ratchet, stages, checkpoints, codec, history, scale, recovery", err=True)
    guarded, ratcheted = await guard.measure(prompts), ratchet.measure(plan.in_process)
    judge_us = stages.microseconds_per_request(sample.records, sample.requests)
    checkpoint_us = await checkpointing.microseconds_per_request(kafka, sample.records, sample.requests)
    stored = history.with_effects(backlog.make(plan.history_requests).records)
    rates = await history.rates(stored, folder / "clickhouse", plan.rounds)
    scaled = scale.measure(sample.records, plan.triggers, plan.long_requests)
    recovered = None
    if plan.keys:
        recovered = await recovery.measure(kafka, sample, plan.keys, plan.triggers, folder)
    about = machine(load_before, data_dir() is not None)
    decode_us = codec.decode_us(sample.records)
    return report.build(
        measured, parts, judge_us, checkpoint_us, decode_us, guarded, ratcheted, rates, scaled, two_workers,
        recovered, alerts, about,
    )  # fmt: skip


@click.command()
@click.option("--short", is_flag=True, help="One round, about a minute.")
@click.option("--page", "only_page", is_flag=True, help="Only write docs/benchmarks.md from the report.")
@click.option("--out", default=".bench", show_default=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--docs", default="docs", show_default=True, type=click.Path(file_okay=False, path_type=Path))
def main(short: bool, only_page: bool, out: Path, docs: Path) -> None:
    """Measure into OUT/report.json; ratios are of figures measured side by side in this run."""
    path = out / "report.json"
    if only_page:
        if not path.is_file():
            raise click.ClickException(f"{path} is not there: `make bench` writes it")
        page.write(msgspec.json.decode(path.read_bytes(), type=report.Report), docs)
        return
    out.mkdir(parents=True, exist_ok=True)
    plan = SHORT if short else FULL
    alerts = latency.measure(out, plan.load_seconds) if plan.load_seconds else None
    with KafkaCluster(nodes=3) as kafka, tempfile.TemporaryDirectory(prefix="pointsman-bench-") as folder:
        found = asyncio.run(run(plan, kafka, Path(folder), alerts))
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    for name in ("detect_over_literal", "detect_over_ceiling", "checkpoint_share", "startup_s"):
        click.echo(f"{name:40} {getattr(found, name):>10}")
    for group in ("cpu_per_request", "recovery", "alert_latency_ms"):
        figures = getattr(found, group)
        for name, value in msgspec.structs.asdict(figures).items() if figures else ():
            click.echo(f"{f'{group}.{name}':40} {'-' if value is None else value:>10}")
    for name, lane in (("detect", found.detect), ("literal", found.literal)):
        click.echo(f"{name + '.requests_per_s':40} {lane.requests_per_s:>10,.1f}")
    for name in ("p99_ms", "requests_per_s_32"):
        click.echo(f"{'guard.' + name:40} {getattr(found.guard, name):>10,}")
    for name in ("labels_per_s", "state_bytes"):
        click.echo(f"{'ratchet.' + name:40} {getattr(found.ratchet, name):>10,}")
    click.echo(f"{'ceiling.requests_per_s':40} {found.ceiling.requests_per_s:>10,.1f}\nwritten to {path}")


if __name__ == "__main__":
    main()
