"""The Faust app of one process: the roles it was asked for, wired to their settings."""

import uuid
from collections.abc import Collection
from typing import Any, Literal, get_args

import faust

from detectors.panel import build_panel
from detectors.thresholds import Thresholds
from streams.control import Control
from streams.health import Health
from streams.kafka import connection
from streams.lane import Lane
from streams.lanes import detect, fleet
from streams.lanes.history import HistoryLane
from streams.lanes.notify import NotifyLane
from streams.settings import Settings
from streams.web import Web

Role = Literal["detect", "fleet", "history", "notify"]
ROLES: tuple[Role, ...] = get_args(Role)


def build(settings: Settings, roles: Collection[Role]) -> faust.App:
    """Make the app; nothing is connected before it starts."""
    brokers = connection(settings.kafka)
    suffix = settings.kafka.topic_suffix
    app = faust.App(
        # Of its own in each process: with a shared id a restart waits for the old session, and the control
        # topics, which every worker must read whole, would be shared out among them.
        f"pointsman-{uuid.uuid4().hex[:12]}",
        broker=[f"kafka://{host}" for host in settings.kafka.bootstrap.split(",")],
        broker_credentials=_credentials(brokers),
        store="memory://",
        datadir=None,
        web_enabled=False,
        table_standby_replicas=0,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=1.0,
        broker_max_poll_interval=120.0,
        worker_redirect_stdouts=False,
    )
    health = Health()
    services: list[Any] = [Web(settings.web, health)]
    control = Control(app, settings, brokers, health)
    services.append(control)
    if "detect" in roles:
        panel = build_panel(Thresholds())
        control.follow(panel)
        services.append(Lane(app, detect.spec(settings, panel), brokers, health, suffix))
    if "fleet" in roles:
        services.append(Lane(app, fleet.spec(settings), brokers, health, suffix))
    if "history" in roles:
        services.append(HistoryLane(app, settings, brokers, health))
    if "notify" in roles:
        services.append(NotifyLane(settings, brokers, health))
    for service in services:
        app.service(service)
    return app


def _credentials(brokers: dict[str, Any]) -> Any:
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
