"""The guard of a gateway: `detectors.guard.Guard` by the settings, its panel kept as the service's own is.

A daemon thread follows the control topics, as every worker does, or two files where a gateway has no broker to
ask. It never stands between a request and its verdict: until the first swap the shipped catalogue judges, and
while brokers are away the last one does.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from detectors.catalogue import read_records
from detectors.guard import Guard
from detectors.panel import PromptPanel
from detectors.registry import guard_detectors
from streams.chain import update_keys
from streams.control import InForce
from streams.kafka import connection, followed
from streams.lanes.detect import panel_of
from streams.settings import Settings, SettingsError

log = logging.getLogger(__name__)

POLL_MS = 500  # a poll without records after some with: what came is swapped in as one
LOOK_SECONDS = 2.0  # between two looks at files
PAUSE_SECONDS = 5.0  # before brokers are asked again

_read_thresholds = msgspec.json.Decoder(dict[str, float]).decode


def from_settings(settings: Settings) -> Guard:
    """The guard that the settings ask for, its panel followed live for as long as the process lives.

    Raises:
        SettingsError: `guard.fail` is not set, there is nothing to follow, or a kind to refuse does not exist.
    """
    wanted = settings.guard
    if not wanted.fail:
        raise SettingsError(["guard.fail is not set: must what cannot be judged pass (open) or not (closed)?"])
    panel = panel_of(msgspec.structs.replace(settings.detect, transformer_per_second=0.0))
    follower = _follower(settings, panel)
    try:
        guard = Guard(
            panel, guard_detectors(panel.thresholds, panel.rules), fail=wanted.fail,
            refuse=[kind.strip() for kind in wanted.refuse.split(",") if kind.strip()],
            budget_s=wanted.budget_ms / 1000,
        )  # fmt: skip
    except ValueError as error:
        raise SettingsError([f"guard: {error}"]) from error
    follower.start()
    return guard


def _follower(settings: Settings, panel: PromptPanel) -> "Follower":
    wanted = settings.guard
    if wanted.catalogue or wanted.thresholds:
        return FileFollower(panel, wanted.catalogue, wanted.thresholds)
    if not settings.kafka.bootstrap:
        raise SettingsError(
            ["guard.fail is set, but neither kafka.bootstrap nor guard.catalogue or guard.thresholds: "
             "the guard has nothing to follow"]
        )  # fmt: skip
    keys = update_keys(settings.feedback)
    return TopicFollower(panel, connection(settings.kafka), settings.kafka.topic_suffix, keys)


class Follower(threading.Thread):
    """Keeps a panel up to date until `close`."""

    def __init__(self, panel: PromptPanel) -> None:
        super().__init__(name="pointsman-guard-follower", daemon=True)
        self._panel = panel
        self._closing = threading.Event()
        self.current = threading.Event()  # set once the panel is what its source said at the start

    def close(self) -> None:
        """End; returns when it has."""
        self._closing.set()
        self.join()


class TopicFollower(Follower):
    """From the control topics. A consumer of its own: workers' groups and offsets are not touched."""

    def __init__(
        self, panel: PromptPanel, brokers: Mapping[str, Any], suffix: str = "",
        update_keys: Mapping[str, bytes] | None = None,
    ) -> None:  # fmt: skip
        """`update_keys`: as of `InForce`."""
        super().__init__(panel)
        self._brokers = brokers
        self._suffix = suffix
        self._update_keys = update_keys

    def run(self) -> None:
        """Follow, and begin again where brokers could not be reached."""
        while not self._closing.is_set():
            try:
                asyncio.run(self._follow())
            except Exception as error:  # whatever it is, the thread goes on
                log.warning("the guard's catalogue and thresholds are not followed (%s)", type(error).__name__)
                self._closing.wait(PAUSE_SECONDS)

    async def _follow(self) -> None:
        in_force, changed = InForce(self._panel, self._update_keys, self._suffix), True
        async with followed(self._brokers, *in_force.topics) as tail:
            while not self._closing.is_set():
                records = await tail.read(POLL_MS)
                for record in records:
                    in_force.take(record)
                if changed and not records and await tail.at_end():
                    in_force.swap()
                    self.current.set()
                    changed = False
                changed = changed or bool(records) or in_force.is_due()


class FileFollower(Follower):
    """From a JSONL catalogue and a JSON object of thresholds (`{"triggers.bits": 30}`); an empty path: as shipped.

    A file is taken when its time or size has changed; one that cannot be read changes nothing, and is logged.
    """

    def __init__(self, panel: PromptPanel, catalogue: str, thresholds: str) -> None:
        super().__init__(panel)
        self._takes = [
            (Path(path), take)
            for path, take in ((catalogue, self._take_catalogue), (thresholds, self._take_thresholds))
            if path
        ]
        self._seen: dict[Path, tuple[int, int]] = {}
        self._taken = 0

    def run(self) -> None:
        """Look every two seconds."""
        while True:
            self._look()
            self.current.set()
            if self._closing.wait(LOOK_SECONDS):
                return

    def _look(self) -> None:
        for path, take in self._takes:
            try:
                stat = os.stat(path)
                if self._seen.get(path) == (stat.st_mtime_ns, stat.st_size):
                    continue
                self._seen[path] = stat.st_mtime_ns, stat.st_size
                take(path)
            except Exception as error:  # whatever is in a file, the thread goes on
                log.error("%s: not taken, what was in force stays (%s: %s)", path, type(error).__name__, error)

    def _take_catalogue(self, path: Path) -> None:
        self._panel.swap_catalogue(read_records(path).catalogue())

    def _take_thresholds(self, path: Path) -> None:
        self._taken += 1
        self._panel.thresholds.swap(_read_thresholds(path.read_bytes()), self._taken)
