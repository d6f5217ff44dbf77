"""Python's garbage collector as a worker has it."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_THRESHOLDS = (50_000, 20, 50)


def settle() -> None:
    """Keep what is loaded out of collections, and make them seldom: records make garbage, but hardly ever cycles.

    With Python's own thresholds they were a tenth of judging, and half of making rows of the history.
    """
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    gc.enable()


@contextmanager
def settled() -> Iterator[None]:
    """The same for a while: what is measured costs what it costs in a worker."""
    before = gc.get_threshold()
    settle()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
