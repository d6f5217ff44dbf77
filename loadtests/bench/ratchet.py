"""Labels that a ratchet takes in a second of CPU, deciding after each, and the bytes of its state."""

import random
import time
from collections.abc import Callable
from statistics import median

import msgspec

from detectors.ratchet import Nested, Ratchet, RatchetConfig, TrustedLabel
from detectors.ratchet.terms import MOST_STEPS

ROUNDS = 5
MINUTE = 60.0
TENANTS = 256  # as many as have a ratchet of their own

CONFIG = RatchetConfig(
    grid=tuple(i / MOST_STEPS for i in range(MOST_STEPS)), start=5, ceiling=MOST_STEPS - 1, steps_per_day=24
)


class Figures(msgspec.Struct):
    """With the largest grid there may be, in one thread."""

    labels_per_s: float  # of one scope
    nested_labels_per_s: float  # of one threshold: the fleet's scope and that of one of `TENANTS`, for each label
    state_bytes: int  # of a scope, the largest seen


def measure(labels: int) -> Figures:
    """Median of a few rounds over the same labels: four in a hundred unsafe, of 500 principals."""
    of_few, of_many = _log(labels, 20), _log(labels, TENANTS)
    most = 0

    def alone() -> None:
        nonlocal most
        ratchet = Ratchet(CONFIG)
        ratchet.follow(of_few)
        most = max(most, len(ratchet.snapshot()))

    def nested() -> None:
        fleet = Nested(CONFIG)
        for label in of_many:
            fleet.take(label)
            for tenant, _, move in fleet.due(label.time):
                fleet.apply(tenant, move)

    return Figures(round(labels / _seconds(alone), 1), round(labels / _seconds(nested), 1), most)


def _log(labels: int, tenants: int) -> list[TrustedLabel]:
    rng = random.Random(0)
    return [
        TrustedLabel(
            time=i * MINUTE, tenant_id=f"t{i % tenants}", principal_hash=f"p{i % 500}", score=rng.random(),
            unsafe=rng.random() < 0.04,
        )
        for i in range(labels)
    ]  # fmt: skip


def _seconds(work: Callable[[], None]) -> float:
    """Of CPU, the median of a few rounds."""
    took = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return median(took)
