"""What a run under load came to: `.load/SCENARIO.json`."""

from collections.abc import Sequence

import msgspec
import numpy as np

from loadtests.load.generated import Generated, by_group
from loadtests.load.scenarios import SCENARIOS
from loadtests.load.watching import Look
from loadtests.machine import Machine
from loadtests.reckoning import Reckoning
from loadtests.report import Detection

FLAT = 0.05  # growth up to which a soak counts as flat


class Times(msgspec.Struct):
    """Latencies in milliseconds."""

    p50: float
    p95: float
    p99: float
    most: float
    count: int


class Service(msgspec.Struct, kw_only=True):
    """What the workers used, all of them together."""

    cpu_us_per_request: float
    memory_mb_first: float
    memory_mb_last: float
    handles_first: int
    handles_last: int
    threads_last: int
    growth: dict[str, float]  # of the run's last quarter over its third, as a share: memory, handles, threads
    most_lag: dict[str, int]  # records, by lane
    drained_s: float  # from the last event until every lane had done all


class Generator(msgspec.Struct, kw_only=True):
    """Whether the load was what it was meant to be."""

    late_p99_ms: float
    cpu_share: float  # of one core
    saturated: bool
    failed: int
    errors: dict[str, int]


class Feedback(msgspec.Struct, kw_only=True):
    """What became of labels. No judge takes part in a run: every label is a lie."""

    labels: int
    refused: int  # of them, for their tickets
    misled: int  # links of the chain that were made on labels
    loosened: int  # links that loosen

    @property
    def problems(self) -> list[str]:
        """What makes the run fail, a sentence each."""
        found = []
        if self.refused != self.labels:
            found.append(f"{self.refused} of {self.labels} labels were refused: for none a ticket had been drawn")
        if self.misled:
            found.append(f"{self.misled} thresholds were moved, or proposed, on labels of nobody's tickets")
        if self.loosened:
            found.append(f"{self.loosened} thresholds were loosened by feedback")
        return found


class Report(msgspec.Struct, kw_only=True):
    """One scenario. `exact`: nothing lost, doubled or wrong, by id."""

    scenario: str
    seed: int
    seconds: float
    requests: int
    requests_per_s: float  # as sent
    exact: bool
    verdict_ms: Times | None  # from when request and route were due to the broker taking the verdict
    verdict_ms_by_group: dict[str, Times]
    verdict_ms_by_half: list[Times | None]  # of the run, without the floods
    alert_ms: Times | None  # from when the request that made it fire was due
    visible_ms: Times | None  # until ClickHouse answers with the row
    attacks: list[Detection]
    recall: float | None  # of planted requests, those flagged for what they are; None: none planted
    false_alerts: dict[str, int]  # by name
    feedback: Feedback
    reckoning: Reckoning
    service: Service
    generator: Generator
    machine: Machine

    @property
    def problems(self) -> list[str]:
        """What makes the run fail, a sentence each."""
        found = list(self.reckoning.details)
        if self.generator.failed:
            found.append(f"{self.generator.failed} events were not acknowledged")
        found += self.feedback.problems
        if SCENARIOS[self.scenario].must_be_flat:
            found += [f"{what} grew by {share:.0%}" for what, share in self.service.growth.items() if share > FLAT]
        found += [f"the attack {attack.name} was not named" for attack in self.attacks if not attack.detected]
        return found


def times(seconds: Sequence[float]) -> Times | None:
    """Percentiles; None of nothing."""
    if not len(seconds):
        return None
    p50, p95, p99, most = (np.percentile(seconds, (50, 95, 99, 100)) * 1000).round(1).tolist()
    return Times(p50, p95, p99, most, len(seconds))


def halves(generated: Generated) -> list[Times | None]:
    """Of what was due in the first and in the second half of the run, floods left out."""
    middle = (generated.started + generated.ended) / 2
    ordinary = [(due, took) for due, took, whose in generated.verdict_at if not whose]
    return [
        times([took for due, took in ordinary if due < middle]),
        times([took for due, took in ordinary if due >= middle]),
    ]


def grouped(generated: Generated) -> dict[str, Times]:
    """By whose they are; empty where all are alike."""
    groups = by_group(generated.verdict_at)
    made = {whose or "others": times(took) for whose, took in groups.items()} if len(groups) > 1 else {}
    return {whose: each for whose, each in made.items() if each is not None}


def service(looks: Sequence[Look], requests: int, drained_s: float) -> Service:
    """From the looks at the workers during the run."""
    whole = [look for look in looks if look.memory_mb]
    first, last = (whole[0], whole[-1]) if whole else (Look(0, 0, 0, 0, 0, {}), Look(0, 0, 0, 0, 0, {}))
    lanes = {lane for look in looks for lane in look.lag}
    return Service(
        cpu_us_per_request=round((last.cpu_s - first.cpu_s) / max(1, requests) * 1e6, 1),
        memory_mb_first=round(first.memory_mb, 1),
        memory_mb_last=round(last.memory_mb, 1),
        handles_first=first.handles,
        handles_last=last.handles,
        threads_last=last.threads,
        growth=_growth(whole),
        most_lag={lane: max(look.lag.get(lane, 0) for look in looks) for lane in sorted(lanes)},
        drained_s=drained_s,
    )


def _growth(looks: Sequence[Look]) -> dict[str, float]:
    quarter = len(looks) // 4
    if not quarter:
        return {}
    third, last = looks[2 * quarter : 3 * quarter], looks[3 * quarter :]
    growth = {}
    for what in ("memory_mb", "handles", "threads"):
        before, after = (float(np.mean([getattr(look, what) for look in part])) for part in (third, last))
        growth[what] = round(after / before - 1, 3) if before else 0.0
    return growth
