"""The Faust app of one process: the roles it was asked for, wired to their settings."""

import asyncio
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import faust
from faust.tables import TableManager
from mode import Service

from detectors.detections import load
from detectors.suppressions import Suppressions
from streams import web
from streams.chain import update_keys
from streams.control import Control
from streams.health import Health
from streams.kafka import connection
from streams.lane import Lane, LaneSpec
from streams.lanes import detect, feedback, fleet
from streams.lanes.history import HistoryLane
from streams.lanes.notify import NotifyLane
from streams.lanes.transplant import Transplanter
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
        self._runner = await web.start(self._health, self._settings.host, self._settings.port, self._links)

    async def on_stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()


class WarmUp(Service):
    """Compiles and loads before the lanes join their groups: with an empty cache that takes seconds."""

    def __init__(self, spec: LaneSpec) -> None:
        super().__init__()
        self._spec = spec

    async def on_start(self) -> None:
        """Judge a first request; what starts after this waits for it."""
        await asyncio.to_thread(detect.warm_up, self._spec)


class _NoTables(TableManager):
    """Faust's manager of tables waits a second for them to be declared; we have none."""

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


class Pointsman(faust.App):
    def _create_directories(self) -> None:
        """No folder: tables are in memory, and each start would leave one where it was started."""


def build(settings: Settings, roles: Collection[Role]) -> faust.App:
    """Make the app; nothing is connected before it starts. Services start in the order given here."""
    brokers = connection(settings.kafka)
    suffix = settings.kafka.topic_suffix
    app = Pointsman(
        # Of its own in each process: with a shared id a restart waits for the old session, and the control
        # topics, which every worker must read whole, would be shared out among them.
        f"pointsman-{uuid.uuid4().hex[:12]}",
        broker=[f"kafka://{host}" for host in settings.kafka.bootstrap.split(",")],
        broker_credentials=_credentials(brokers),
        store="memory://",
        web_enabled=False,
        table_standby_replicas=0,
        TableManager=_NoTables,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=1.0,
        broker_max_poll_interval=120.0,
        worker_redirect_stdouts=False,
    )
    if not settings.feedback.key:
        roles = [role for role in roles if role != "feedback"]
    health = Health(expected=("catalogue", *roles))
    panel = detect.panel_of(settings.detect)
    folder = settings.fleet.detections
    detections = load(Path(folder) if folder else None)
    control = Control(app, brokers, health, panel, suffix, update_keys(settings.feedback))
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


def _credentials(brokers: Mapping[str, Any]) -> Any:
    """Faust's own form of the same connection settings."""
    if "sasl_mechanism" in brokers:
        return faust.SASLCredentials(
            username=brokers["sasl_plain_username"],
            password=brokers["sasl_plain_password"],
            mechanism=brokers["sasl_mechanism"],
            ssl_context=brokers.get("ssl_context"),
        )
    if "ssl_context" in brokers:
        return faust.SSLCredentials(brokers["ssl_context"])
    return None
