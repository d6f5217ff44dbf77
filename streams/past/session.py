"""From a request for a replay to its results in their tables."""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import msgspec
import yaml

from detectors.catalogue import Catalogue, read_records
from detectors.contract import StreamDetector
from detectors.custody.rules import Rules
from detectors.detections import Detections
from detectors.detections import load as load_detections
from detectors.fleet import FleetPartition
from detectors.judge import Judge, JudgeLimits
from detectors.panel import PromptPanel
from detectors.processor import Record
from detectors.registry import stream_detectors
from detectors.thresholds import DEFAULTS, Thresholds, in_force
from streams.chain import update_keys, whole
from streams.custody import rules
from streams.kafka import connection
from streams.lanes.detect import limits_of, panel_of
from streams.past import history, kafka
from streams.past.results import Results, erasures
from streams.past.run import Pins, Replay, Run, Window, new_run
from streams.settings import Settings
from streams.store import Store

KAFKA, HISTORY = "kafka", "history"


class Wanted(NamedTuple):
    """What to replay. Thresholds are laid over the fleet's in force; the catalogue replaces the one in force."""

    source: str
    window: Window
    thresholds: Mapping[str, float] = {}
    catalogue: Path | None = None


class _Cast(NamedTuple):
    """Who judges."""

    panel: PromptPanel
    detectors: Mapping[str, str]  # versions
    catalogue: Catalogue | None  # None: what needs one is recorded
    rules: Rules
    memory: history.Memory
    base: Thresholds  # in force, without what is tried


def read_thresholds(path: Path) -> dict[str, float]:
    """Read a YAML or JSON mapping of `detector.parameter` to a number.

    Raises:
        ValueError: it is something else, or names what no detector reads.
    """
    try:
        values = msgspec.convert(yaml.safe_load(path.read_text(encoding="utf-8")), dict[str, float])
    except (yaml.YAMLError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no mapping of thresholds to numbers") from error
    if unknown := sorted(set(values) - set(DEFAULTS)):
        raise ValueError(f"{path}: no such threshold: {', '.join(unknown)}")
    return values


async def replay_past(settings: Settings, wanted: Wanted, store: Store) -> Run:
    """Judge the window again and store what comes of it.

    Raises:
        ValueError: a catalogue is asked for where prompts are gone.
        CatalogueError, KafkaError, ClickHouseError: what is read, or written, cannot be.
    """
    cast = await (_from_kafka if wanted.source == KAFKA else _from_history)(settings, wanted, store)
    folder = settings.fleet.detections
    detections = load_detections(Path(folder) if folder else None)
    limits = limits_of(settings.detect)
    run = new_run(_pins(wanted, cast, limits, detections))

    def judge(partition: int) -> Judge:
        return Judge(cast.panel, _stream_detectors(wanted, cast), limits, partition, detections)

    # The router is not asked about the past: windows are judged by their residuals.
    fleet = FleetPartition.build(
        detections, cast.panel.thresholds, transplants=False, resend_seconds=settings.fleet.resend_seconds
    )
    replay = Replay(run, wanted.window, judge, fleet)
    results = Results(store, run)
    await results.begin()
    async for partition, records in await _events(settings, wanted, store, run, cast):
        await results.take(*replay.feed(partition, records))
    await results.take(alerts=replay.finish())
    await results.close()
    return run


async def _from_kafka(settings: Settings, wanted: Wanted, store: Store) -> _Cast:
    panel = panel_of(settings.detect)
    keys = update_keys(settings.feedback)
    await kafka.put_in_force(connection(settings.kafka), settings.kafka.topic_suffix, panel, keys)
    if wanted.catalogue:
        panel.swap_catalogue(read_records(wanted.catalogue).catalogue())
    base = panel.thresholds.over({})
    tried = {**{name: base[name] for name in DEFAULTS}, **wanted.thresholds}
    panel.thresholds.swap(tried, base.version, base.own)
    versions = {detector.name: detector.version for detector in panel.detectors}
    return _Cast(panel, versions, panel.catalogue, panel.rules, history.Memory(), base)


async def _from_history(settings: Settings, wanted: Wanted, store: Store) -> _Cast:
    if wanted.catalogue:
        raise ValueError("the history has no prompts: a catalogue can be tried on Kafka's events only")
    base = in_force(await whole(store), datetime.now(UTC))
    memory = history.Memory()
    panel = history.RecordedPanel(base.over(wanted.thresholds), base, memory)
    versions = {detector.name: detector.version for detector in panel.detectors}
    return _Cast(panel, versions, None, rules(settings.detect), memory, base)


def _stream_detectors(wanted: Wanted, cast: _Cast) -> Sequence[StreamDetector]:
    thresholds = cast.panel.thresholds
    if wanted.source == KAFKA:
        return stream_detectors(thresholds, cast.rules)
    return history.recorded_detectors(thresholds, cast.rules, cast.base, cast.memory)


async def _events(
    settings: Settings, wanted: Wanted, store: Store, run: Run, cast: _Cast
) -> AsyncIterator[tuple[int, Sequence[Record]]]:
    erased = await erasures(store)
    if wanted.source == HISTORY:
        return history.events(store, wanted.window, erased, run, cast.memory)
    return kafka.events(connection(settings.kafka), settings.kafka.topic_suffix, wanted.window, erased, run)


def _pins(wanted: Wanted, cast: _Cast, limits: JudgeLimits, detections: Detections) -> Pins:
    stream = {detector.name: detector.version for detector in _stream_detectors(wanted, cast)}
    catalogue = cast.catalogue
    return Pins(
        release=version("pointsman"),
        source=wanted.source,
        window=wanted.window,
        detectors={**cast.detectors, **stream},
        thresholds=_named(cast.panel.thresholds),
        thresholds_version=cast.panel.thresholds.version,
        catalogue_version=catalogue.version if catalogue else 0,
        catalogue_sha256=_sha256(catalogue.triggers) if catalogue else "",
        rules_sha256=_sha256(cast.rules.file),
        alerting_sha256=_sha256(sorted(detections, key=lambda detection: detection.rule_id)),
        limits=msgspec.to_builtins(limits),
    )


def _named(thresholds: Thresholds) -> dict[str, float]:
    """All values: the fleet's by name, a tenant's own by name and tenant."""
    own = {f"{name} {tenant}": value for (name, tenant), value in sorted(thresholds.own.items())}
    return {**{name: thresholds[name] for name in DEFAULTS}, **own}


def _sha256(records: object) -> str:
    return hashlib.sha256(msgspec.json.encode(records, order="sorted")).hexdigest()
