"""What `make bench` writes: `.bench/report.json`. Every ratio is of two figures that stand beside it."""

from collections.abc import Sequence
from statistics import median
from typing import Any

import msgspec

from loadtests.bench import guard, latency, ratchet, recovery, scale
from loadtests.bench.history import Rates
from loadtests.bench.rounds import Lane, Round, summarise
from loadtests.machine import Machine


class Ceiling(msgspec.Struct):
    """The bare loop over prompts."""

    requests_per_s: float
    parts: list[str]
    rounds: list[float]


class HistoryRates(msgspec.Struct):
    """Into ClickHouse, in process."""

    rows_per_s: float
    bare_rows_per_s: float
    over_bare_insert: float  # median of the rounds' own ratios


class CpuPerRequest(msgspec.Struct):
    """CPU a request with more of something, over the same with less: `scale` says how many."""

    two_workers: float | None
    principals: float
    triggers: float
    chars: float


class Report(msgspec.Struct):
    """All figures of one run."""

    detect: Lane
    literal: Lane
    detect_over_literal: float
    literal_cpu_over_detect: float
    ceiling: Ceiling
    detect_over_ceiling: float
    judge_us_per_request: dict[str, float]  # one thread, in process, by stage
    checkpoint_us_per_request: float  # CPU of making and writing deltas
    checkpoint_share: float  # of the worker's CPU
    codec: dict[str, float]  # decode, µs an event by type
    guard: guard.Figures
    ratchet: ratchet.Figures
    history: HistoryRates
    startup_s: float
    cpu_per_request: CpuPerRequest
    scale: scale.Figures
    two_workers: Round | None  # this and what follows are not looked at in a run that is too short
    recovery: recovery.Figures | None
    alert_latency_ms: latency.Figures | None
    machine: Machine


def build(
    rounds: Sequence[Any],
    parts: list[str],
    judge_us: dict[str, float],
    checkpoint_us: float,
    codec: dict[str, float],
    guarded: guard.Figures,
    ratcheted: ratchet.Figures,
    history: Rates,
    scaled: scale.Figures,
    two_workers: Round | None,
    recovered: recovery.Figures | None,
    alerts: latency.Figures | None,
    about: Machine,
) -> Report:
    """Put figures together. `rounds`: (ours, literal, ceiling's requests/s), each measured side by side."""
    detect, literal = (summarise([each[place] for each in rounds]) for place in (0, 1))
    ceilings = [round(each[2], 1) for each in rounds]
    return Report(
        detect=detect,
        literal=literal,
        detect_over_literal=round(median(a.requests_per_s / b.requests_per_s for a, b, _ in rounds), 2),
        literal_cpu_over_detect=round(literal.cpu_us_per_request / detect.cpu_us_per_request, 2),
        ceiling=Ceiling(median(ceilings), parts, ceilings),
        detect_over_ceiling=round(median(a.requests_per_s / c for a, _, c in rounds), 3),
        judge_us_per_request=judge_us,
        checkpoint_us_per_request=round(checkpoint_us, 2),
        checkpoint_share=round(checkpoint_us / detect.cpu_us_per_request, 3),
        codec=codec,
        guard=guarded,
        ratchet=ratcheted,
        history=HistoryRates(
            rows_per_s=round(median(history.history)),
            bare_rows_per_s=round(median(history.bare)),
            over_bare_insert=round(median(a / b for a, b in zip(history.history, history.bare, strict=True)), 3),
        ),
        startup_s=detect.startup_s,
        cpu_per_request=CpuPerRequest(
            two_workers=_over_last_round(two_workers, rounds[-1][0]) if two_workers is not None else None,
            principals=scaled.principals.ratio,
            triggers=scaled.triggers.ratio,
            chars=scaled.chars.ratio,
        ),
        scale=scaled,
        two_workers=two_workers,
        recovery=recovered,
        alert_latency_ms=alerts,
        machine=about,
    )


def _over_last_round(two_workers: Round, one_worker: Round) -> float:
    """The two are measured one after the other."""
    return round(two_workers.cpu_us_per_request / one_worker.cpu_us_per_request, 3)
