"""Every detector of the product keeps every promise of the contract."""

import hashlib
import subprocess
import sys
from collections.abc import Callable

import pytest

from detectors.contract import PromptDetector
from detectors.panel import build_panel
from detectors.registry import stream_detectors
from detectors.thresholds import Thresholds
from tests.detectors.checks import (
    PROMPT_CHECKS,
    SMALL,
    STREAM_CHECKS,
    Factory,
    check_is_described,
    feed,
    traffic,
)

STREAM = sorted(SMALL)


@pytest.fixture(scope="module")
def prompt_detectors() -> dict[str, PromptDetector]:
    """What ships, by name: artefacts are loaded once."""
    return {detector.name: detector for detector in build_panel(Thresholds()).detectors}


def test_every_stream_detector_is_in_the_battery() -> None:
    assert sorted(detector.name for detector in stream_detectors(Thresholds())) == STREAM


@pytest.mark.parametrize("name", STREAM)
def test_stream_detector_is_described(name: str) -> None:
    check_is_described(SMALL[name]())


@pytest.mark.parametrize("check", STREAM_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", STREAM)
def test_stream_detector(name: str, check: Callable[[Factory], None]) -> None:
    check(SMALL[name])


def test_prompt_detectors(prompt_detectors: dict[str, PromptDetector]) -> None:
    assert prompt_detectors
    for detector in prompt_detectors.values():
        check_is_described(detector)
        for check in PROMPT_CHECKS:
            check(detector)


def states_digest() -> str:
    """Of all stream detectors' states after the same traffic."""
    digest = hashlib.sha256()
    for name in STREAM:
        detector = SMALL[name]()
        feed(detector, list(traffic(1000, seed=11)))
        for key, value in sorted(detector.snapshot().items()):
            digest.update(key.encode() + value)
    return digest.hexdigest()


def test_states_do_not_depend_on_the_process() -> None:
    code = "from tests.detectors.test_contract import states_digest; print(states_digest())"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert runs == {states_digest() + "\n"}
