"""The guard in a gateway's process: how long one call takes, and how many go through with 32 callers at once."""

import asyncio
import time
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from detectors.guard import Guard
from detectors.panel import build_panel
from detectors.registry import guard_detectors
from detectors.thresholds import Thresholds
from schemas.events import Request

CALLERS = 32
NO_BUDGET_S = 60.0  # every call is answered, however long it took: a verdict `budget` would flatter the figures


class Figures(msgspec.Struct):
    """Of one guard over the same prompts."""

    p50_ms: float  # of a lone caller's call
    p99_ms: float
    requests_per_s_32: float  # of 32 tasks of one event loop, each asking again once it is answered


async def measure(requests: Sequence[Request]) -> Figures:
    """A third of the requests one after the other, then the rest by 32 callers."""
    panel = build_panel(Thresholds())
    lone = len(requests) // 3
    with Guard(panel, guard_detectors(panel.thresholds), fail="open", budget_s=NO_BUDGET_S) as guard:
        took = []
        for request in requests[:lone]:
            began = time.perf_counter()
            guard.judge(request)
            took.append(time.perf_counter() - began)
        rate = await _together(guard, requests[lone:])
    p50, p99 = np.percentile(took, [50, 99]) * 1e3
    return Figures(round(float(p50), 3), round(float(p99), 3), round(rate, 1))


async def _together(guard: Guard, requests: Sequence[Request]) -> float:
    left = iter(requests)
    began = time.perf_counter()
    await asyncio.gather(*(_caller(guard, left) for _ in range(CALLERS)))
    return len(requests) / (time.perf_counter() - began)


async def _caller(guard: Guard, left: Iterator[Request]) -> None:
    for request in left:
        await guard.judge_async(request)
