"""What a router usually spends on a request, so that a finding can say what it cost beyond that.

The mean of the router's own estimates for requests that nobody flagged, over about the last thousand. A gateway's
`baseline_cost_usd` is no such figure: it is what the dearest model would have cost.
"""

import math
import struct
from collections.abc import Iterator
from typing import TypeGuard

from detectors.contract import Case
from detectors.keyed import Keyed, compound_key
from schemas.events import Route

ROUTERS = 256
MEMORY = 1_000.0  # requests
WARM = 20.0  # requests before there is a usual

_MEAN = struct.Struct("<dd")  # weight, mean
Mean = tuple[float, float]


def _unpack(value: bytes) -> Mean:
    weight, mean = _MEAN.unpack(value)
    return weight, mean


class UsualCost:
    """Keyed state of one partition, kept as a stream detector's is."""

    name = "usual_cost"

    def __init__(self) -> None:
        self._routers: Keyed[Mean] = Keyed("r/", ROUTERS, lambda mean: _MEAN.pack(*mean), _unpack)

    def learn(self, route: Route | None) -> None:
        """Take an unflagged request's estimate in; what a cache answered cost nothing and says nothing."""
        if route is None or not _is_cost(route.cost_estimate_usd):
            return
        key = compound_key(route.router_name)
        weight, mean = self._routers.get(key) or (0.0, 0.0)
        weight = min(weight + 1.0, MEMORY)
        self._routers.put(key, (weight, mean + (route.cost_estimate_usd - mean) / weight), weight >= WARM)

    def beyond(self, case: Case) -> float | None:
        """Dollars beyond the usual, 0 for less; None: neither cost nor usual is known."""
        route, outcome = case.route, case.outcome
        if route is None:
            return None
        weight, mean = self._routers.get(compound_key(route.router_name)) or (0.0, 0.0)
        cost = outcome.cost_usd if outcome is not None and outcome.cost_usd is not None else route.cost_estimate_usd
        return max(0.0, cost - mean) if _is_cost(cost) and weight >= WARM else None

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """See `StreamDetector.changes`."""
        return self._routers.changes()

    def snapshot(self) -> dict[str, bytes]:
        """See `StreamDetector.snapshot`."""
        return self._routers.snapshot()

    def load(self, key: str, value: bytes | None) -> None:
        """See `StreamDetector.load`."""
        self._routers.load(key, value)


def _is_cost(usd: float | None) -> TypeGuard[float]:
    return usd is not None and math.isfinite(usd) and usd > 0
