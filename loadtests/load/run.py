"""One scenario from empty topics to rest: brokers, engine, workers, Locust, and the judgement by ids."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from loadtests.load import report
from loadtests.load.generated import Generated
from loadtests.load.scenarios import SCENARIOS, Scene
from loadtests.load.watching import Look, Watching
from loadtests.machine import machine
from loadtests.prompts import data_dir
from loadtests.reckoning import Judged, Reckoner
from loadtests.report import Told, name_attacks
from loadtests.rig import Rig, staffed
from loadtests.workers import Worker
from schemas.alerts import Alert
from schemas.thresholds import ThresholdUpdate
from schemas.topics import ALERTS, AUDITS, DEADLETTERS, THRESHOLDS, named
from streams.embedded.clickhouse import ClickHouseServer
from streams.embedded.kafka import KafkaCluster
from streams.kafka import read_to_end

LOCUSTFILES = Path(__file__).parents[1] / "locustfiles"
ROOT = Path(__file__).parents[2]
DRAIN_SECONDS = 600.0
# On two cores the first minute of a cluster is its JVMs' compiler's: half a core each.
WARM_SECONDS, WARM_GATEWAYS = 60, 4


@dataclass(frozen=True, slots=True)
class Plan:
    """How much load. A gateway makes what its locustfile's `rate` says."""

    gateways: int
    seconds: int
    seed: int
    attack_ratio: float | None = None  # None: the scenario's


@dataclass(frozen=True, slots=True)
class Ground:
    """What scenarios share."""

    kafka: KafkaCluster
    engine: ClickHouseServer
    folder: Path
    reckoner: Reckoner


@contextlib.contextmanager
def ground() -> Iterator[Ground]:
    """Brokers and the engine; the brokers have had load for so long that what they do most is compiled."""
    with (
        TemporaryDirectory(prefix="pointsman-load-") as folder,
        KafkaCluster(3) as kafka,
        ClickHouseServer(Path(folder) / "clickhouse") as engine,
    ):
        found = Ground(kafka, engine, Path(folder), Reckoner())
        run(found, "steady", Plan(WARM_GATEWAYS, WARM_SECONDS, seed=0), Path(folder))
        yield found


@dataclass(slots=True)
class Raw:
    """What a run leaves before it is judged."""

    generated: Generated
    looks: list[Look]
    drained_s: float


def run(where: Ground, name: str, plan: Plan, out: Path, **settings: str) -> tuple[report.Report, Raw]:
    """Run one scenario; Locust's csv and html go to `out`. `settings`: of the workers, beside the connections."""
    load_before = os.getloadavg()[0]
    settings = {**SCENARIOS[name].settings, **settings}
    rig = Rig(where.kafka, where.engine, where.folder, name.replace("_", "-"), **settings)
    feedback = ("feedback",) if rig.as_workers_have_it().feedback.key else ()
    workers = [rig.worker("detect", ("detect", "fleet", *feedback)), rig.worker("history", ("history",))]
    with staffed(workers):
        raw = _under_load(rig, workers, name, plan, out)
    return asyncio.run(_judge(where.reckoner, rig, name, plan, raw, load_before)), raw


def _under_load(rig: Rig, workers: list[Worker], name: str, plan: Plan, out: Path) -> Raw:
    scenario = SCENARIOS[name]
    found = out / f"{name}.generated"
    with Watching(workers) as watching, (out / f"{name}.log").open("wb") as log:
        locust = subprocess.Popen(_command(rig, name, plan, out, found), cwd=ROOT, stdout=log, stderr=log)  # noqa: S603
        try:
            if scenario.disturb is not None:
                scenario.disturb(Scene(rig, workers, plan.seconds, lambda: locust.poll() is not None))
            locust.wait(timeout=plan.seconds + DRAIN_SECONDS)
        finally:
            if locust.poll() is None:
                locust.kill()
                locust.wait()
        if not found.exists():
            raise RuntimeError(f"locust ended with {locust.returncode} and left nothing; see {out / name}.log")
        generated = msgspec.msgpack.decode(found.read_bytes(), type=Generated)
        found.unlink()
        rig.settle(DRAIN_SECONDS)
    drained_s = max(0.0, _last_idle(watching.looks, generated.ended))
    return Raw(generated, watching.looks, round(drained_s, 1))


def _command(rig: Rig, name: str, plan: Plan, out: Path, found: Path) -> list[str]:
    scenario = SCENARIOS[name]
    ratio = scenario.attack_ratio if plan.attack_ratio is None else plan.attack_ratio
    arguments: Mapping[str, Any] = {
        "--locustfile": LOCUSTFILES / f"{scenario.file}.py",
        "--users": plan.gateways,
        "--spawn-rate": plan.gateways,
        "--run-time": f"{plan.seconds}s",
        "--csv": out / name,
        "--html": out / f"{name}.html",
        "--brokers": rig.kafka.bootstrap,
        "--suffix": rig.suffix,
        "--clickhouse": rig.engine.dsn,
        "--database": rig.database,
        "--attack-ratio": ratio,
        "--seed": plan.seed,
        "--report": found.absolute(),
    }
    flags = ["--headless", "--csv-full-history", "--only-summary", "--reset-stats"]
    pairs = [str(part) for pair in arguments.items() for part in pair]
    return [sys.executable, "-m", "locust", *flags, *pairs]


def _last_idle(looks: list[Look], ended: float) -> float:
    """Seconds from the last event to the last look at which a lane was behind by more than what is in the air."""
    behind = [look.at for look in looks if look.at > ended and sum(look.lag.values()) > IN_THE_AIR]
    return (max(behind) - ended) if behind else 0.0


IN_THE_AIR = 100  # records: between two commits there is always something


async def _judge(
    reckoner: Reckoner, rig: Rig, name: str, plan: Plan, raw: Raw, load_before: float
) -> report.Report:
    generated = raw.generated
    async with rig.store() as store:
        reckoning, judged = await reckoner.reckon(rig.brokers, rig.as_workers_have_it(), store, generated.requests)
    start = datetime.fromtimestamp(generated.started, UTC)
    alarms = name_attacks(generated.attacks, await _told(rig), start)
    seconds = generated.ended - generated.started
    return report.Report(
        scenario=name,
        seed=plan.seed,
        seconds=round(seconds, 1),
        requests=reckoning.requests,
        requests_per_s=round(reckoning.requests / seconds, 1),
        exact=reckoning.exact,
        verdict_ms=report.times([took for _, took, _ in generated.verdict_at]),
        verdict_ms_by_group=report.grouped(generated),
        verdict_ms_by_half=report.halves(generated),
        alert_ms=report.times(generated.alert_s),
        visible_ms=report.times(generated.visible_s),
        attacks=alarms.detections,
        recall=_recall(generated, judged),
        false_alerts=dict(Counter(told.alert.alertname for told in alarms.false)),
        feedback=await _feedback(rig),
        reckoning=reckoning,
        service=report.service(raw.looks, reckoning.requests, raw.drained_s),
        generator=report.Generator(
            late_p99_ms=round(generated.late_p99_s * 1000, 1),
            cpu_share=generated.cpu_share,
            saturated=generated.saturated,
            failed=generated.failed,
            errors=generated.errors,
        ),
        machine=machine(load_before, data_dir() is not None),
    )


def _recall(generated: Generated, judged: Mapping[str, Judged]) -> float | None:
    """Share of planted requests whose verdict names the attack for what it is."""
    planted = [
        (f"{request}/request", attack.kinds) for attack in generated.attacks for request in attack.request_ids
    ]
    sent = set(generated.requests)
    verdicts = [(judged[name].kinds if name in judged else [], kinds) for name, kinds in planted if name in sent]
    if not verdicts:
        return None
    return round(sum(not set(seen).isdisjoint(kinds) for seen, kinds in verdicts) / len(verdicts), 3)


async def _told(rig: Rig) -> list[Told]:
    told: dict[str, Told] = {}
    async for record in read_to_end(rig.brokers, named(ALERTS, rig.suffix)):
        if record.value:
            alert = msgspec.json.decode(record.value, type=Alert)
            if alert.status == "firing":
                told.setdefault(alert.alert_id, Told(alert, datetime.fromtimestamp(record.timestamp / 1000, UTC)))
    return list(told.values())


async def _feedback(rig: Rig) -> report.Feedback:
    labels = [record async for record in read_to_end(rig.brokers, named(AUDITS, rig.suffix))]
    letters = [record async for record in read_to_end(rig.brokers, named(DEADLETTERS, rig.suffix))]
    updates = [
        msgspec.json.decode(record.value, type=ThresholdUpdate)
        async for record in read_to_end(rig.brokers, named(THRESHOLDS, rig.suffix))
        if record.value
    ]
    return report.Feedback(
        labels=len(labels),
        refused=sum(("x-reason", b"bad_ticket") in letter.headers for letter in letters),
        misled=sum(update.n_trusted > 0 for update in updates),
        loosened=sum(update.direction == "loosen" for update in updates),
    )
