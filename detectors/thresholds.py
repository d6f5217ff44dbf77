"""The flag thresholds in force: shipped defaults, overlaid by updates that the feedback lane has approved."""

import contextlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType

from schemas.thresholds import FROZEN, IN_FORCE, ROUTING, ThresholdScope, ThresholdUpdate, looser, value_at

# What ships: each was set on development splits by `make eval` (docs/detectors has the tables).
# Higher is looser, but for those that `schemas.thresholds.looser` names.
DEFAULTS: Mapping[str, float] = MappingProxyType(
    {
        "coverage.guardrail_gap": 0.2,
        "coverage.unjudged_share": 0.05,
        "coverage.unsafe_share": 0.02,
        "custody.personals": 1.0,
        "custody.secrets": 1.0,
        "difficulty.caller_share": 0.9,
        "difficulty.contradiction_steps": 2.0,
        "difficulty.habit": 8.0,
        "difficulty.spoofed": 5.0,
        "discovery.alike": 0.045,
        "discovery.baseline": 5_000.0,
        "discovery.bits": 32.0,
        "discovery.bodies": 2.0,
        "discovery.contexts": 5.0,
        "discovery.error": 0.05,
        "discovery.evidence": 2.0,
        "discovery.inner_contexts": 6.0,
        "discovery.inner_lift": 1.4,
        "discovery.lift": 1.0,
        "discovery.newness": 3.0,
        "discovery.proof": 2.0,
        "discovery.queries": 0.005,
        "discovery.slack": 0.9,
        "experts.crowded": 6.0,
        "experts.silenced": 6.0,
        "novelty.flag": 0.995,
        "novelty.prior": 0.95,
        "probing.places": 5.0,
        "probing.run": 20.0,
        "spend.fleet": 7.0,
        "spend.floor_usd_per_hour": 0.05,
        "spend.price": 20.0,
        "spend.rate": 14.0,
        "spend.tier_odds": 12.5,
        "steering.evidence": 10.0,
        "steering.margin": 0.35,
        "steering.odd_text": 0.95,
        "triggers.bits": 22.0,  # at 1,000 entries (triggers/lexical.py, flag_bits)
        "triggers.cosine": 0.78,
        "triggers.share": 0.5,
        "triggers.transformer_cosine": 0.75,
    }
)


_FURTHEST = 1_000.0


def bounds(parameter: str) -> tuple[float, float]:
    """Least and most of what people may set: far enough to switch it off, never 0, by which detectors divide."""
    return DEFAULTS[parameter] / _FURTHEST, DEFAULTS[parameter] * _FURTHEST


class Thresholds:
    """Values by `detector.parameter`. Shared by the detectors of a worker; swapped whole, never edited.

    A tenant may have stricter values of its own: `of` and `strictest` know them, `[]` is the fleet's.
    """

    def __init__(self, values: Mapping[str, float] | None = None, version: int = 0) -> None:
        self.version = version
        self._values = {**DEFAULTS, **(values or {})}
        self._own: Mapping[tuple[str, str], float] = {}
        self._strictest: Mapping[str, float] = {}

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    @property
    def own(self) -> Mapping[tuple[str, str], float]:
        """Tenants' own values, by name and tenant."""
        return self._own

    def over(self, values: Mapping[str, float]) -> "Thresholds":
        """Another object with these values over the fleet's; tenants keep their own."""
        made = Thresholds(version=self.version)
        made.swap({**self._values, **values}, self.version, self._own)
        return made

    def of(self, name: str, tenant_id: str) -> float:
        """A tenant's: its own where that is stricter than the fleet's."""
        fleet = self._values[name]
        own = self._own.get((name, tenant_id), fleet)
        return fleet if looser(name, own, fleet) else own

    def strictest(self, name: str) -> float:
        """Of the fleet's and all tenants': what is said of scores from here on matters to somebody."""
        return self._strictest.get(name, self._values[name])

    def swap(
        self, values: Mapping[str, float], version: int, own: Mapping[tuple[str, str], float] | None = None
    ) -> None:
        """Take over an update for all who hold this object. `own`: by name and tenant.

        Raises:
            KeyError: a name that no detector reads.
        """
        own = own or {}
        unknown = ({*values} | {name for name, _ in own}) - set(DEFAULTS)
        if unknown:
            raise KeyError(f"no such threshold: {', '.join(sorted(unknown))}")
        self._values = {**DEFAULTS, **values}
        self._own = own
        strictest = {name: self._values[name] for name, _ in own}
        for (name, _), value in own.items():
            strictest[name] = strictest[name] if looser(name, value, strictest[name]) else value
        self._strictest = strictest
        self.version = version


class Links:
    """The link in force of each threshold, of links that come in any order, and how to judge by them."""

    def __init__(self) -> None:
        self.in_force: dict[tuple[str, ThresholdScope], ThresholdUpdate] = {}
        self._judged_by: dict[tuple[str, str], ThresholdUpdate] = {}  # by parameter, and tenant or "" for all
        self._version = 0

    def take(self, update: ThresholdUpdate) -> None:
        """Take over a link: proposals, and copies of old links, which must not bring a value back, change nothing.

        Raises:
            KeyError: it is in force, for a parameter that no detector reads.
        """
        name, scope = (update.parameter, update.scope), update.scope
        if update.mode not in IN_FORCE:
            return
        if name in self.in_force and update.version <= self.in_force[name].version:
            return
        self.in_force[name] = update
        if update.parameter in (FROZEN, *ROUTING) or scope.route or scope.category:
            return  # what workers do not judge by
        if update.parameter not in DEFAULTS:
            raise KeyError(f"no such threshold: {update.parameter}")
        self._judged_by[update.parameter, scope.tenant_id] = update
        self._version = max(self._version, update.version)

    def swap_into(self, thresholds: Thresholds, now: datetime) -> datetime | None:
        """Have it judge by the links as of `now`; returns when the first override ends, which calls for another."""
        links = dict(self._judged_by)
        values = {name: value_at(link, now) for name, link in links.items()}
        fleet = {parameter: value for (parameter, tenant), value in values.items() if not tenant}
        own = {name: value for name, value in values.items() if name[1]}
        thresholds.swap(fleet, self._version, own)
        return min(
            (link.expires_at for link in links.values() if link.expires_at and link.expires_at > now), default=None
        )


def in_force(links: Iterable[ThresholdUpdate], now: datetime) -> Thresholds:
    """Judge by what these links, in any order, put in force as of `now`, over what ships."""
    taken, found = Links(), Thresholds()
    for link in links:
        with contextlib.suppress(KeyError):  # of another release: nothing here reads it
            taken.take(link)
    taken.swap_into(found, now)
    return found
