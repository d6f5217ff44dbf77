"""The Faust app of one process: the roles it was asked for, wired to their settings."""

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Literal, get_args

import faust
from mode import Service

from detectors.detections import load
from detectors.suppressions import Suppressions
from streams import web
from streams.chain import update_keys
from streams.control import Control
from streams.health import Health
from streams.kafka import connection
from streams.lane import Lane
from streams.lanes import detect, feedback, fleet
from streams.lanes.history import HistoryLane
from streams.lanes.notify import NotifyLane
from streams.lanes.transplant import Transplanter
from streams.lanespec import LaneSpec
from streams.settings import Settings, Web
from streams.suppressions import SuppressionControl

Role = Literal["detect", "fleet", "feedback", "history", "notify"]
ROLES: tuple[Role, ...] = get_args(Role)


class Probes(Service):
    """The web server of probes, metrics and thresholds."""

    def __init__(self, settings: Web, health: Health, links: web.Links) -> None:
        super().__init__()
        self._links = links
        self._settings = settings
        self._health = health

    async def on_start(self) -> None:
        """Listen."""
        at = self._settings
        await self.add_async_context(web.serving(self._health, at.host, at.port, self._links))


class WarmUp(Service):
    """Compiles and loads before the lanes join their groups: with an empty cache that takes seconds."""

    def __init__(self, spec: LaneSpec) -> None:
        super().__init__()
        self._spec = spec

    async def on_start(self) -> None:
        """Judge a first request; what starts after this waits for it."""
        await asyncio.to_thread(detect.warm_up, self._spec)


class _NoKafka(faust.App.BootStrategy):
    """Agents on channels alone: the services have Kafka clients of their own, and there are no tables."""

    enable_kafka = False


class Pointsman(faust.App):
    """Starts its agents, then its services in the order in which they were added."""

    BootStrategy = _NoKafka

    def __init__(self) -> None:
        super().__init__("pointsman", web_enabled=False, worker_redirect_stdouts=False)

    async def on_start(self) -> None:
        """Open the channels: Faust has them closed until its own consumer has partitions."""
        await super().on_start()
        self.flow_control.resume()

    def _create_directories(self) -> None:
        """No folder: it would be of tables, and each start would leave one where it was started."""


def build(settings: Settings, roles: Collection[Role]) -> faust.App:
    """Make the app; nothing is connected before it starts. Services start in the order given here."""
    brokers = connection(settings.kafka)
    suffix = settings.kafka.topic_suffix
    app = Pointsman()
    if not settings.feedback.key:
        roles = [role for role in roles if role != "feedback"]
    health = Health(expected=("catalogue", *roles))
    panel = detect.panel_of(settings.detect)
    folder = settings.fleet.detections
    detections = load(Path(folder) if folder else None)
    control = Control(brokers, health, panel, suffix, update_keys(settings.feedback))
    services: list[Service] = [Probes(settings.web, health, control.links), control]
    if "detect" in roles:
        detecting = detect.spec(settings, panel, detections)
        services += [WarmUp(detecting), Lane(app, detecting, brokers, health, suffix)]
    if "fleet" in roles:
        suppressions = Suppressions()
        services.append(SuppressionControl(brokers, suppressions, suffix))
        services.append(
            Lane(app, fleet.spec(settings, detections, suppressions, panel.thresholds), brokers, health, suffix)
        )
        if settings.fleet.router_url:
            services.append(Transplanter(settings, brokers, health))
    if "feedback" in roles:
        services.append(Lane(app, feedback.spec(settings, detections), brokers, health, suffix))
        services.append(feedback.Relay(settings, brokers, health))
    if "history" in roles:
        services.append(HistoryLane(app, settings, brokers, health))
    if "notify" in roles:
        services.append(NotifyLane(settings, brokers, health))
    for service in services:
        app.service(service)
    return app
