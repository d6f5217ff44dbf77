"""A worker whose judging fails in the middle of its N-th batch: `python -m tests.integration.raising_worker N`."""

import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

import faust

from detectors.detections import shipped
from detectors.panel import build_panel
from detectors.processor import Output, Record
from detectors.thresholds import Thresholds
from streams import logs
from streams.app import Pointsman
from streams.configuration import load
from streams.health import Health
from streams.kafka import connection
from streams.lane import Lane
from streams.lanes import detect


def main() -> None:
    settings = load(None, os.environ)
    logs.setup(settings.log)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    app = Pointsman()
    spec = detect.spec(settings, build_panel(Thresholds()), shipped())
    batches = 0

    def make(partition: int) -> object:
        processor = spec.make(partition)
        apply = processor.apply

        def failing(records: Sequence[Record]) -> list[Output]:
            nonlocal batches
            batches += 1
            if batches < int(sys.argv[1]):
                return apply(records)
            apply(records[: len(records) // 2])  # half of it is in the state when it fails
            raise RuntimeError("planted")

        processor.apply = failing  # type: ignore[method-assign]
        return processor

    app.service(
        Lane(app, replace(spec, make=make), connection(settings.kafka), Health(), settings.kafka.topic_suffix)  # type: ignore[arg-type]
    )
    faust.Worker(app, loop=loop, quiet=True, override_logging=False).execute_from_commandline()


if __name__ == "__main__":
    main()
