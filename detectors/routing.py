"""Routes that are wrong for a category, nobody attacking: unsafe answers and lost quality, per route and category.

What is proposed is always about one category on one route: a guardrail there, or a stronger route for it. There is
no proposal to move a router's cost threshold: that would pay for all categories to mend one, and it is the lever
that an attacker of the wallet wants moved.
"""

import json
import struct
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from detectors.ratchet.evidence import Floats, Seen, share_ucb

RISES = np.array([0.5, 2.0, 8.0])  # bets against an unsafe share: best where it is (1 + rise) times what is allowed
SLOPES = np.array([0.5, 1.0, 2.0])  # bets against a mean loss of quality
MOST = 1e12
_PRINCIPAL_BITS, _TENANT_BITS = 256, 64
_SUMS = struct.Struct("<Q5d")

Share = Annotated[float, Meta(ge=0, le=1)]


class RoutingConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What is allowed on a route in a category."""

    ladder: tuple[str, ...]  # routes, weakest first
    unsafe_allowed: Share = 0.02
    quality_allowed: Share = 0.2  # mean loss of quality
    delta: Share = 0.01  # of the bounds that show another route to be better
    arl: Annotated[float, Meta(gt=0)] = 10_000.0  # labels of a cell between two false findings, in the mean
    weight_max: Annotated[float, Meta(gt=0)] = 1.0
    least_principals: int = 5
    least_tenants: int = 1
    most_cells: int = 1_024
    guardrail_sensitivity: Share = 0.9  # share of unsafe answers that the guardrail stops


class RouteLabel(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """A trusted judge's answer about one outcome."""

    tenant_id: str
    principal_hash: str
    route: str
    category: str  # of the prompt; "": unknown, and nothing is ever proposed for it
    unsafe: bool | None = None
    quality_loss: float | None = None  # 0: as good as the best route's answer, 1: useless
    weight: float = 1.0  # as in `TrustedLabel`


class Economy(msgspec.Struct, kw_only=True, frozen=True):
    """What routes cost, in USD a request, and how many requests of each (route, category) come a day."""

    route_usd: Mapping[str, float]
    guardrail_usd: float | None
    requests_per_day: Mapping[tuple[str, str], float]


class RoutingProposal(msgspec.Struct, kw_only=True, frozen=True):
    """What one category on one route needs, why, and what it costs."""

    kind: Literal["guardrail", "stronger_route"]
    cause: Literal["unsafe", "quality"]
    route: str
    category: str
    to_route: str  # "" for a guardrail
    seen: float  # unsafe share, or mean loss of quality, as labelled
    allowed: float
    e_value: float
    expected: float  # upper bound of the same after the change; 1: nothing is known of it
    cost_usd_per_day: float | None  # None: a price or the volume is not known
    n_labels: int
    n_principals: int  # lower bounds of how many distinct ones
    n_tenants: int


class Routing:
    """Counts and e-detectors of every (route, category) with labels.

    There is a finding while `M <- (1 + M) (1 + b v (loss - allowed))`, averaged over several b, is at least `arl`
    (Shin, Ramdas and Rinaldo, arXiv:2203.03532): where the loss is what is allowed or less, given the past, the
    labels of that cell until a false finding are at least `arl` in the mean, however often one looks.
    v = weight / weight_max <= 1; a heavier label is cut, so that it says less than it could. The judge is assumed
    not to be fooled. State: 136 bytes a cell; cells beyond `most_cells` are not opened.
    """

    def __init__(self, config: RoutingConfig) -> None:
        self.config = config
        self._cells: dict[tuple[str, str], _Cell] = {}
        self._unsafe_bets = np.minimum(RISES, 0.9 / max(config.unsafe_allowed, 1e-9))
        self._quality_bets = np.minimum(SLOPES, 0.9 / max(config.quality_allowed, 1e-9))

    def take(self, label: RouteLabel) -> None:
        """Take in a label, in log order. Never raises for what is in it."""
        name = label.route, label.category
        cell = self._cells.get(name)
        if cell is None:
            if len(self._cells) >= self.config.most_cells:
                return
            cell = self._cells[name] = _Cell()
        v = min(label.weight / self.config.weight_max, 1.0)
        if not v > 0:
            return
        if label.unsafe is not None:
            cell.unsafe.add(float(label.unsafe), v, self._unsafe_bets, self.config.unsafe_allowed)
        if label.quality_loss is not None and label.quality_loss == label.quality_loss:
            loss = min(max(label.quality_loss, 0.0), 1.0)
            cell.quality.add(loss, v, self._quality_bets, self.config.quality_allowed)
        cell.principals.add(f"{label.tenant_id}\0{label.principal_hash}")
        cell.tenants.add(label.tenant_id)

    def proposals(self, economy: Economy) -> list[RoutingProposal]:
        """What the evidence asks for, in order of route and category. Changes nothing.

        An unsafe category gets the cheaper of a guardrail and of a stronger route that is *shown* to be safe in it;
        where prices are not known, the guardrail. Lost quality gets the cheapest stronger route shown to be good
        enough, or the next one up. A route that is not in the ladder, and the strongest one, can only get a
        guardrail.
        """
        found = (self._proposal(name, cell, economy) for name, cell in sorted(self._cells.items()))
        return [proposal for proposal in found if proposal is not None]

    def snapshot(self) -> dict[str, bytes]:
        """The whole state, by cell."""
        return {json.dumps(name): cell.pack() for name, cell in self._cells.items()}

    @classmethod
    def restore(cls, config: RoutingConfig, states: Mapping[str, bytes]) -> "Routing":
        """Go on from a snapshot.

        Raises:
            ValueError: it is none.
        """
        routing = cls(config)
        for name, state in states.items():
            route, category = json.loads(name)
            routing._cells[route, category] = _Cell.unpack(state)
        return routing

    def _proposal(self, name: tuple[str, str], cell: "_Cell", economy: Economy) -> RoutingProposal | None:
        config, category = self.config, name[1]
        if (
            not category
            or len(cell.principals) < config.least_principals
            or len(cell.tenants) < config.least_tenants
        ):
            return None
        if cell.unsafe.e_value >= config.arl:
            guardrail = self._guardrail(name, cell, economy)
            stronger = self._shown(self._stronger(name, "unsafe", economy))
            if stronger is None or guardrail.cost_usd_per_day is None or stronger.cost_usd_per_day is None:
                return guardrail
            return min(guardrail, stronger, key=_cost)
        if cell.quality.e_value >= config.arl:
            options = self._stronger(name, "quality", economy)
            return self._shown(options) or (options[0] if options else None)
        return None

    def _guardrail(self, name: tuple[str, str], cell: "_Cell", economy: Economy) -> RoutingProposal:
        left = 1 - self.config.guardrail_sensitivity
        bound = share_ucb(cell.unsafe.hits, cell.unsafe.mass, self.config.delta)
        return self._made("guardrail", "unsafe", name, "", bound * left, economy.guardrail_usd, economy)

    def _stronger(
        self, name: tuple[str, str], cause: Literal["unsafe", "quality"], economy: Economy
    ) -> list[RoutingProposal]:
        """One for each route above in the ladder, next one first."""
        route, category = name
        ladder, usd = self.config.ladder, economy.route_usd
        found = []
        for other in ladder[ladder.index(route) + 1 :] if route in ladder else ():
            cell = self._cells.get((other, category)) or _Cell()
            risk = cell.unsafe if cause == "unsafe" else cell.quality
            bound = share_ucb(risk.hits, risk.mass, self.config.delta)
            dearer = usd[other] - usd[route] if other in usd and route in usd else None
            found.append(self._made("stronger_route", cause, name, other, bound, dearer, economy))
        return found

    def _shown(self, options: list[RoutingProposal]) -> RoutingProposal | None:
        """The cheapest of those whose bound is within what is allowed; without prices the first."""
        shown = [option for option in options if option.expected <= option.allowed]
        return min(shown, key=_cost) if shown else None

    def _made(
        self,
        kind: Literal["guardrail", "stronger_route"],
        cause: Literal["unsafe", "quality"],
        name: tuple[str, str],
        to_route: str,
        expected: float,
        usd: float | None,
        economy: Economy,
    ) -> RoutingProposal:
        cell, volume = self._cells[name], economy.requests_per_day.get(name)
        risk = cell.unsafe if cause == "unsafe" else cell.quality
        return RoutingProposal(
            kind=kind,
            cause=cause,
            route=name[0],
            category=name[1],
            to_route=to_route,
            seen=risk.hits / risk.mass,
            allowed=self.config.unsafe_allowed if cause == "unsafe" else self.config.quality_allowed,
            e_value=risk.e_value,
            expected=expected,
            cost_usd_per_day=None if usd is None or volume is None else usd * volume,
            n_labels=risk.labels,
            n_principals=len(cell.principals),
            n_tenants=len(cell.tenants),
        )


class _Risk:
    """A mean loss and the e-detector against it: 48 bytes packed."""

    def __init__(self) -> None:
        self.labels = 0
        self.mass = 0.0  # sum of v
        self.hits = 0.0  # sum of v times loss
        self.detectors: Floats = np.zeros(len(RISES))

    @property
    def e_value(self) -> float:
        """Of the e-detector, up to `MOST`."""
        return float(self.detectors.mean())

    def add(self, loss: float, v: float, bets: Floats, allowed: float) -> None:
        """Add one label."""
        self.labels += 1
        self.mass += v
        self.hits += v * loss
        np.minimum((1 + self.detectors) * (1 + bets * (v * (loss - allowed))), MOST, out=self.detectors)

    def pack(self) -> bytes:
        """What `unpack` reads."""
        return _SUMS.pack(self.labels, self.mass, self.hits, *self.detectors.tolist())

    @classmethod
    def unpack(cls, value: bytes) -> "_Risk":
        """What `pack` wrote."""
        risk = cls()
        risk.labels, risk.mass, risk.hits, *detectors = _SUMS.unpack(value)
        risk.detectors[:] = detectors
        return risk


class _Cell:
    """A route in a category."""

    def __init__(self) -> None:
        self.unsafe = _Risk()
        self.quality = _Risk()
        self.principals = Seen(_PRINCIPAL_BITS)
        self.tenants = Seen(_TENANT_BITS)

    def pack(self) -> bytes:
        """What `unpack` reads."""
        return self.unsafe.pack() + self.quality.pack() + self.principals.pack() + self.tenants.pack()

    @classmethod
    def unpack(cls, value: bytes) -> "_Cell":
        """What `pack` wrote.

        Raises:
            ValueError: it is of another length.
        """
        ends = 2 * _SUMS.size, 2 * _SUMS.size + _PRINCIPAL_BITS // 8
        if len(value) != ends[1] + _TENANT_BITS // 8:
            raise ValueError(f"a cell's state of {len(value)} bytes")
        cell = cls()
        cell.unsafe, cell.quality = _Risk.unpack(value[: _SUMS.size]), _Risk.unpack(value[_SUMS.size : ends[0]])
        cell.principals, cell.tenants = Seen.unpack(value[ends[0] : ends[1]]), Seen.unpack(value[ends[1] :])
        return cell


def _cost(proposal: RoutingProposal) -> float:
    return 0.0 if proposal.cost_usd_per_day is None else proposal.cost_usd_per_day
