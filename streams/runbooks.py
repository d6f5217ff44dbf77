"""A detection's runbook with an alert's values in it."""

import shlex
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from detectors.detections import Detections
from detectors.detections.model import PLACEHOLDERS
from streams.notifiers.text import inert, timestamp


def runbook(alert: Mapping[str, Any], detections: Detections) -> list[str]:
    """The lines of its detection's steps, each value inert and safe to be pasted to a shell; none without one."""
    detection = detections.get(alert["alertname"])
    if detection is None:
        return []
    texts = {}
    for name in PLACEHOLDERS:
        value = alert.get(name) or ""
        texts[name] = shlex.quote(timestamp(value) if isinstance(value, datetime) else inert(str(value)))
    return detection.runbook.format(**texts).splitlines()
