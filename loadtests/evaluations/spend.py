"""How `spend` does on real arrivals: `python -m loadtests.evaluations.spend` prints the table of its page.

Principals are contiguous runs of Azure's inference traces (arrival times, tokens), stretched to hours: bursts stay
as they were. Tiers are drawn per principal around the shares of `loadtests.router.TIERS`, with their prices. The
first day is warm-up. River's detectors run on the same log costs, their thresholds set for the same false alarms.
"""

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import numpy.typing as npt
from river import drift, stats

from detectors.contract import Case, PromptFacts
from detectors.detections import shipped
from detectors.spend import Spend
from detectors.spend.levels import Levels
from detectors.thresholds import Thresholds
from loadtests.prompts import data_dir
from loadtests.router import SHARES, TIERS
from schemas.codec import encode
from schemas.events import Outcome, Request, Route
from schemas.topics import FINDINGS
from schemas.verdicts import Finding, PriceLevels, Reason
from streams.replay import FileRecord

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
DAY = 86_400.0
START = 1_790_000_000.0 // DAY * DAY
TIER_SHARES = (*SHARES, 1 - sum(SHARES))
IDLE_HOURS = 0.15
MEDIAN_PER_DAY, SPREAD = 400.0, 1.2  # lognormal requests a day over principals


@dataclass(frozen=True)
class Traffic:
    """One principal's requests in order: stream time, tokens, tier, cost."""

    time: Floats
    tokens: Ints  # [n, 2] in and out
    rank: Ints
    usd: Floats
    attacked_from: float = math.inf


def traces(data: Path) -> list[tuple[Floats, Ints]]:
    """Arrival seconds and tokens of both traces."""
    out = []
    for name in ("conv", "code"):
        with (data / "traces" / f"AzureLLMInferenceTrace_{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        times = [datetime.fromisoformat(row["TIMESTAMP"][:26]).replace(tzinfo=UTC).timestamp() for row in rows]
        tokens = [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in rows]
        out.append((np.array(times) - times[0], np.array(tokens)))
    return out


def price(tokens: Ints, rank: Ints) -> Floats:
    """USD of each request."""
    rates = np.array([(tier.usd_1k_input, tier.usd_1k_output) for tier in TIERS])
    usd: Floats = (tokens * rates[rank]).sum(axis=1) / 1000
    return usd


def principals(data: Path, n: int, days: int, seed: int) -> list[Traffic]:
    """Honest principals of every size, with days, idle hours and bursts."""
    rng, real = np.random.default_rng(seed), traces(data)
    out: list[Traffic] = []
    while len(out) < n:
        times, tokens = real[int(rng.integers(2))]
        per_day, offset = MEDIAN_PER_DAY * math.exp(rng.normal(0, SPREAD)), rng.integers(24)
        shares = rng.dirichlet(np.array(TIER_SHARES) * 8)
        when, what = [], []
        for hour in range(24 * days):
            wave = 1 + 0.7 * math.sin(((hour + offset) % 24 - 9) / 24 * 2 * math.pi)
            count = min(int(rng.poisson(per_day / 24 * wave * math.exp(rng.normal(-0.18, 0.6)))), len(times) - 2)
            if rng.random() < IDLE_HOURS or not count:
                continue
            first = int(rng.integers(len(times) - count))
            run = times[first : first + count]
            length = max(times[first + count] - run[0], 1e-9)
            when.append(START + hour * 3600 + (run - run[0]) / length * 3600)
            what.append(tokens[first : first + count])
        if sum(len(run) for run in when) < 10 * days:
            continue
        time, used = np.concatenate(when), np.concatenate(what)
        rank = rng.choice(len(TIERS), len(time), p=shares)
        out.append(Traffic(time, used, rank, price(used, rank)))
    return out


def attack(honest: Traffic, kind: str, times: float, rng: np.random.Generator) -> Traffic:
    """The same principal, attacked from some time of the second day."""
    start = START + DAY + rng.uniform(0, DAY / 2)
    hit = honest.time >= start
    if kind == "tier":
        rank = np.where(hit & (rng.random(len(hit)) < 0.95), len(TIERS) - 1, honest.rank)
        return replace(honest, rank=rank, usd=price(honest.tokens, rank), attacked_from=start)
    if kind == "price":
        return replace(honest, usd=np.where(hit, honest.usd * times, honest.usd), attacked_from=start)
    more = np.repeat(np.flatnonzero(hit), rng.poisson(times - 1, int(hit.sum())))
    time = np.concatenate([honest.time, honest.time[more] + rng.uniform(0, 60, len(more))])
    like = np.concatenate([np.arange(len(hit)), rng.integers(0, len(hit), len(more))])
    order = np.argsort(time, kind="stable")
    like = like[order]
    return Traffic(time[order], honest.tokens[like], honest.rank[like], honest.usd[like], start)


@dataclass
class Alarm:
    """A flagged case, or what the fleet lane finds of all."""

    principal: int  # -1: of all
    time: float
    kind: str
    stage: str


def play(traffic: Sequence[Traffic], detector: Spend) -> Iterator[Alarm]:
    """All principals' requests through the detector, in order of time."""
    who = np.concatenate([np.full(len(t.time), i) for i, t in enumerate(traffic)])
    time = np.concatenate([t.time for t in traffic])
    rank = np.concatenate([t.rank for t in traffic])
    usd = np.concatenate([t.usd for t in traffic])
    zero = datetime.fromtimestamp(START, UTC)
    ids: dict[str, Any] = {"event_id": "e", "event_time": zero, "request_id": "r"}
    people = [ids | {"tenant_id": f"t{i % 20}", "principal_hash": f"p{i}"} for i in range(len(traffic))]
    requests = [Request(**person) for person in people]
    route = Route(**people[0], selected_model="m", router_name="words")
    outcome = Outcome(**people[0])
    facts, fleet, told = PromptFacts(), Levels(shipped(), Thresholds()), 0
    for i in np.argsort(time, kind="stable").tolist():
        person = int(who[i])
        route.tier_rank, outcome.cost_usd = int(rank[i]), float(usd[i])
        for seen in (None, outcome):
            case = Case(time=float(time[i]), request=requests[person], route=route, outcome=seen, prompt=facts)
            answer = detector.score(case)
            flagged = isinstance(answer, Reason) and answer.flagged
            detector.learn(case, flagged)
            if flagged and isinstance(answer, Reason):
                yield Alarm(person, case.time, answer.kind, answer.stage)
            if isinstance(answer, Reason) and answer.levels is not None:
                for _ in fleet.apply([_record(told, case.time, answer.levels)]):
                    yield Alarm(-1, case.time, "fleet_spend", "level")
                told += 1


def _record(offset: int, time: float, levels: PriceLevels) -> FileRecord:
    finding = Finding(
        finding_id=str(offset), kind="price_levels", category="cost_escalation", severity="info",
        time=datetime.fromtimestamp(time, UTC), labels={}, detector="spend", detector_version="2", levels=levels,
    )  # fmt: skip
    return FileRecord(FINDINGS.name, offset, round(time * 1000), encode(finding))


def false_alarms(traffic: Sequence[Traffic], days: int) -> dict[str, float]:
    """By stage: flagged (principal, day) pairs for 1,000 principals and day; for `level`, alarms a day."""
    seen: set[tuple[str, int, int]] = set()
    levels = 0
    for alarm in play(traffic, Spend(Thresholds())):
        day = int((alarm.time - START) // DAY)
        if not day:
            continue
        if alarm.kind == "fleet_spend":
            levels += 1
        else:
            seen.add((alarm.stage, alarm.principal, day))
    scale = 1000 / (len(traffic) * (days - 1))
    rates = {stage: scale * sum(s == stage for s, _, _ in seen) for stage in ("tier", "price", "rate")}
    rates["all"] = scale * len({(who, day) for _, who, day in seen})
    rates["level"] = levels / (days - 1)
    return rates


class Found(NamedTuple):
    """Share of attacked principals found within a day; medians to the first alarm."""

    share: float
    requests: float
    minutes: float


def found(traffic: Sequence[Traffic], own: str) -> tuple[Found, Found]:
    """What any sum of a principal's finds, and what the `own` one of the attack finds."""
    first: dict[int, float] = {}
    first_own: dict[int, float] = {}
    for alarm in play(traffic, Spend(Thresholds())):
        start = traffic[alarm.principal].attacked_from
        if alarm.stage in OWN_STAGES and start <= alarm.time < start + DAY:
            first.setdefault(alarm.principal, alarm.time)
            if alarm.stage == own:
                first_own.setdefault(alarm.principal, alarm.time)
    tried = {i for i, t in enumerate(traffic) if np.sum(t.time >= t.attacked_from) >= 3}
    return _summed(traffic, tried, first), _summed(traffic, tried, first_own)


def _summed(traffic: Sequence[Traffic], tried: set[int], first: dict[int, float]) -> Found:
    hits = [(traffic[i], time) for i, time in first.items() if i in tried]
    if not hits:
        return Found(0.0, math.inf, math.inf)
    took = [np.sum((t.time >= t.attacked_from) & (t.time <= time)) for t, time in hits]
    minutes = [(time - t.attacked_from) / 60 for t, time in hits]
    return Found(len(hits) / len(tried), float(np.median(took)), float(np.median(minutes)))


# River on the same log costs: what a principal's own change detector would do.


def _page_hinkley() -> Callable[[float], float]:
    test = drift.PageHinkley(min_instances=20, delta=0.35, threshold=math.inf, mode="up")
    spread = stats.EWVar(0.01)

    def update(x: float) -> float:
        spread.update(x)
        test.update(x / math.sqrt(spread.get() + 0.02))
        return float(test._sum_increase - test._min_increase)  # noqa: SLF001  # River shows only the yes or no

    return update


def _means() -> Callable[[float], float]:
    fast, slow, spread = stats.EWMean(0.05), stats.EWMean(0.001), stats.EWVar(0.01)

    def update(x: float) -> float:
        for stat in (fast, slow, spread):
            stat.update(x)
        return float(fast.get() - slow.get()) / math.sqrt(spread.get() + 0.02)

    return update


def river_on_price(
    honest: Sequence[Traffic], attacked: Sequence[Traffic], days: int, rate: float
) -> dict[str, float]:
    """Share of attacks found within a day; thresholds set on `honest` for `rate` false per 1,000 and day."""
    out = {}
    for name, make in (("PageHinkley", _page_hinkley), ("EWMean fast/slow", _means)):
        worst = []
        for t in honest:
            sums = _values(make(), t)
            worst += [
                max(sums[(t.time >= START + day * DAY) & (t.time < START + (day + 1) * DAY)], default=0.0)
                for day in range(1, days)
            ]
        limit = np.quantile(worst, 1 - rate / 1000, method="higher")
        hits = [
            _values(make(), t)[(t.time >= t.attacked_from) & (t.time < t.attacked_from + DAY)] for t in attacked
        ]
        out[name] = float(np.mean([np.any(h > limit) for h in hits if len(h) >= 3]))
    return out


def _values(update: Callable[[float], float], t: Traffic) -> Floats:
    return np.array([update(math.log(usd + 1e-6)) for usd in t.usd])


ATTACKS = (("tier", 1.0, "95 % to the top tier"), ("price", 3.0, "price x3"), ("price", 10.0, "price x10"),
           ("rate", 3.0, "rate x3"), ("rate", 10.0, "rate x10"))  # fmt: skip
OWN_STAGES = ("tier", "price", "rate")


@click.command()
@click.option("--principals", "n", default=1000, show_default=True, help="Honest principals for the false alarms.")
@click.option("--attacked", default=200, show_default=True, help="Attacked principals for each kind of attack.")
@click.option("--days", default=3, show_default=True, help="The first is warm-up.")
@click.option("--seed", default=2, show_default=True, help="The shipped thresholds were set on seed 1.")
@click.option(
    "--attack", "only", type=click.Choice([title for _, _, title in ATTACKS]), multiple=True,
    help="Only these, and no false alarms.",
)  # fmt: skip
def main(n: int, attacked: int, days: int, seed: int, only: tuple[str, ...]) -> None:
    """Print the tables of docs/detectors/spend.md."""
    data = data_dir()
    if data is None:
        raise click.ClickException("POINTSMAN_DATA has no arrival traces")
    honest = [] if only else principals(data, n, days, seed)
    rates: dict[str, float] = {}
    if honest:
        requests = sum(len(t.time) for t in honest)
        click.echo(f"{n} principals, {requests} requests, {days - 1} days judged, seed {seed}")
        rates = false_alarms(honest, days)
        click.echo("false for 1,000 principals and day: " + ", ".join(f"{k} {v:.2f}" for k, v in rates.items()))
    click.echo("| attack | found within a day | median requests | median minutes | by its own sum alone |")
    base = principals(data, attacked, days, seed + 1000)
    for i, (kind, times, title) in enumerate(ATTACKS):
        if only and title not in only:
            continue
        rng = np.random.default_rng((seed, i))
        hit = [attack(t, kind, times, rng) for t in base]
        told, own = found(hit, kind)
        row = (title, f"{told.share:.2f}", f"{told.requests:.0f}", f"{told.minutes:.0f}")
        click.echo("| " + " | ".join(row) + f" | {own.share:.2f} in {own.requests:.0f} |")
        if kind == "price" and honest:
            river = river_on_price(honest, hit, days, rates["price"] or 1000 / (n * (days - 1)))
            click.echo("  River at the same false rate: " + ", ".join(f"{k} {v:.2f}" for k, v in river.items()))


if __name__ == "__main__":
    main()
