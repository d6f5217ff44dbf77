"""What `make bench` writes: `.bench/report.json`. Every ratio is of two figures that stand beside it."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from statistics import median
from typing import Any

import msgspec

from loadtests.bench import guard, ratchet
from loadtests.bench.history import Rates
from loadtests.bench.rounds import Lane, summarise

_PACKAGES = ("faust-streaming", "aiokafka", "numpy", "faiss-cpu", "river", "chdb", "sentence-transformers", "torch")


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


class Machine(msgspec.Struct):
    """What it ran on."""

    cpus: int
    python: str
    load_before: float  # of the minute before: others on the machine make figures smaller
    real_prompts: bool
    versions: dict[str, str]


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
    machine: Machine


def machine(load_before: float, real_prompts: bool) -> Machine:
    """What this process runs on."""
    return Machine(
        cpus=os.cpu_count() or 1,
        python=platform.python_version(),
        load_before=round(load_before, 2),
        real_prompts=real_prompts,
        versions={name: version(name) for name in _PACKAGES},
    )


def build(
    rounds: Sequence[Any],
    parts: list[str],
    judge_us: dict[str, float],
    checkpoint_us: float,
    codec: dict[str, float],
    guarded: guard.Figures,
    ratcheted: ratchet.Figures,
    history: Rates,
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
        machine=about,
    )
