import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from streams.cli import main

POINTSMAN = Path(sys.executable).with_name("pointsman")


def test_run_serves_until_it_is_asked_to_end(tmp_path: Path) -> None:
    with subprocess.Popen(
        [POINTSMAN, "kafka", "run", "--data", tmp_path], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline().startswith("127.0.0.1:")
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert "shutdown" in (tmp_path / "node1" / "broker.log").read_text().lower()


def test_fetch_names_a_jar_that_is_not_the_locked_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jar = tmp_path / "kafka" / "tool-1.0.jar"
    jar.parent.mkdir()
    jar.write_bytes(b"not what was locked")
    lock = tmp_path / "jars.lock"
    lock.write_text(f"org.example:tool:1.0 {'0' * 64}\n")
    monkeypatch.setenv("POINTSMAN_CACHE", str(tmp_path))
    monkeypatch.setattr("streams.embedded.jars.ensure.__defaults__", (None, lock))
    result = CliRunner().invoke(main, ["kafka", "fetch"])
    assert result.exit_code == 1
    assert "tool-1.0.jar is not org.example:tool:1.0" in result.output
