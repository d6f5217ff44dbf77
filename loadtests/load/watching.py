"""What workers use while they are under load, once a second: CPU, memory, file handles, tasks, lag by lane."""

import time
import urllib.error
import urllib.request
from collections.abc import Sequence

import msgspec
import psutil
from prometheus_client.parser import text_string_to_metric_families

from loadtests.background import Background
from loadtests.workers import Worker, WorkerFailed

PERIOD_SECONDS = 1.0
_LAG = "pointsman_consumer_lag_messages"


class Look(msgspec.Struct):
    """All workers at one moment, summed."""

    at: float  # seconds since 1970
    cpu_s: float  # used since each started
    memory_mb: float  # resident
    handles: int  # open files and sockets
    threads: int
    lag: dict[str, int]  # records, by lane


class Watching(Background):
    """Looks at workers from a thread until told to stop. One that is away is left out."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        super().__init__()
        self.looks: list[Look] = []
        self._workers = workers

    def work(self) -> None:
        """Look, again and again."""
        while not self.stopping.wait(PERIOD_SECONDS):
            look = Look(time.time(), 0.0, 0.0, 0, 0, {})
            for worker in self._workers:
                try:
                    _add(look, worker)
                except (WorkerFailed, psutil.Error, urllib.error.URLError, OSError):
                    continue
            self.looks.append(look)


def _add(look: Look, worker: Worker) -> None:
    process = psutil.Process(worker.pid)
    used = process.cpu_times()
    look.cpu_s += used.user + used.system
    look.memory_mb += process.memory_info().rss / (1 << 20)
    look.handles += process.num_fds()
    look.threads += process.num_threads()
    with urllib.request.urlopen(worker.metrics_url, timeout=2) as answer:  # noqa: S310  a worker of our own
        text = answer.read().decode()
    lines = "\n".join(line for line in text.splitlines() if _LAG in line)
    for family in text_string_to_metric_families(lines):
        for sample in family.samples:
            lane = sample.labels["lane"]
            look.lag[lane] = look.lag.get(lane, 0) + int(sample.value)
