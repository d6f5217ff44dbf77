"""What `make eval` writes: `.eval/report.json`. A part that was not run keeps what an earlier run found."""

from pathlib import Path
from statistics import median

import msgspec

from detectors.contract import PromptDetector
from detectors.evaluation import BATCH, judge
from loadtests.bench.triggers import REPEATS, prompts_of
from loadtests.evaluations.novelty import Report as Novelty
from loadtests.evaluations.semantic import Report as Semantic
from loadtests.evaluations.triggers import Report as Triggers


class Speed(msgspec.Struct):
    """CPU of reading and judging a prompt by all prompt detectors, one thread, in batches of 256."""

    chars: int
    us_per_prompt: float  # median of `REPEATS` runs
    rounds: list[float]


class Report(msgspec.Struct):
    """All parts; None: never run."""

    short: bool
    triggers: Triggers | None = None
    semantic: Semantic | None = None
    novelty: Novelty | None = None
    speed: Speed | None = None
    streams: dict[str, str] = {}  # what the evaluations of the stream detectors print


def speed(detectors: list[PromptDetector], prompts: int, chars: int = 400) -> Speed:
    """Measure on benign texts of `chars` characters."""
    texts = prompts_of(chars, prompts)
    rounds = [
        sum(judge(detectors, texts[at : at + BATCH])[1] for at in range(0, len(texts), BATCH)) / len(texts) * 1e6
        for _ in range(REPEATS + 1)
    ][1:]  # the first compiles
    return Speed(chars, round(median(rounds), 1), [round(took, 1) for took in rounds])


def read(path: Path, short: bool) -> Report:
    """Return the report at `path`, or an empty one where there is none of this length."""
    if path.is_file():
        found = msgspec.json.decode(path.read_bytes(), type=Report)
        if found.short == short:
            return found
    return Report(short)


def write(report: Report, path: Path) -> None:
    """Write it, for people too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
