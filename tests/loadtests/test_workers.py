"""Workers end with whoever started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

STARTER = """
import sys, time
from pathlib import Path
from loadtests.workers import Worker
worker = Worker("w", Path(sys.argv[1]), {"POINTSMAN_KAFKA_BOOTSTRAP": "127.0.0.1:1"}).start()
print(worker.pid, flush=True)
time.sleep(60)
"""


def test_a_worker_ends_with_a_starter_that_was_killed(tmp_path: Path) -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    assert psutil.Process(pid).is_running()
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    deadline = time.monotonic() + 10
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
