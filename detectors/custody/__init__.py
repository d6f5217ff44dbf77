"""Custody: is the router an honest middleman of what passes through its hands?

At the verdict: does the prompt carry what must not leave (recognisers.py), and does the route that was taken,
fail-overs included, keep the tenant's rules (rules.py). At the outcome: is what the client got what the provider
said, was a canary seen, and is there a guardrail's verdict where the tenant's rules ask for one. At both: does the
gateway run what it ran before.
"""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from detectors.contract import Answer, Case
from detectors.custody.rules import Rules
from detectors.keyed import Keyed, compound_key
from detectors.thresholds import Thresholds
from schemas.events import Event, Outcome, Route
from schemas.verdicts import Reason

GATEWAYS = 1_024
KNOWN = 8  # pairs of version and plug-ins that are remembered of a gateway: a rolling upgrade runs several
ESTABLISHED = 50  # events of a gateway after which another pair is news
_ANSWERED = frozenset({"", "provider", "router"})  # sources of outcomes that are the answer itself

Software = tuple[str, str]  # gateway_version, gateway_plugins_hash


class _Gateway(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a gateway was seen to run, the latest last."""

    events: int = 0  # up to ESTABLISHED
    known: tuple[Software, ...] = ()

    def runs(self, software: Software) -> bool:
        """Whether it was seen to; not every event says what the plug-ins are."""
        if software in self.known:  # nearly always
            return True
        version, plugins = software
        return any(version == v and plugins in ("", p) for v, p in self.known)

    def with_(self, software: Software) -> "_Gateway":
        known = self.known if self.runs(software) else (*self.known, software)[-KNOWN:]
        return _Gateway(min(ESTABLISHED, self.events + 1), known)


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(_Gateway).decode


class _Found(NamedTuple):
    """What makes a Reason."""

    kind: str
    stage: str
    note: str
    score: float = 1.0
    threshold: float = 1.0


class Custody:
    """A StreamDetector. Of several things in one case the gravest is said; a changed gateway waits for its turn."""

    name = "custody"
    version = "1"
    kinds = (
        "canary_credential", "egress_personal", "egress_secret", "gateway_changed", "response_changed",
        "route_rule_broken", "tool_calls_changed",
    )  # fmt: skip

    def __init__(self, thresholds: Thresholds, rules: Rules, gateways: int = GATEWAYS) -> None:
        self._thresholds = thresholds
        self._rules = rules
        self._gateways = Keyed("g/", gateways, _pack, _unpack)

    @property
    def evicted(self) -> int:
        """Gateways dropped by this process for want of room."""
        return self._gateways.evicted

    def score(self, case: Case) -> Answer:
        """0 where all that could be checked is in order; None: nothing could be checked."""
        found = self._found(case) or self._changed(case)
        if found is None:
            return 0.0 if self._could_check(case) else None
        return Reason(
            detector=self.name,
            detector_version=self.version,
            score=found.score,
            threshold=found.threshold,
            threshold_version=self._thresholds.version,
            flagged=True,
            kind=found.kind,
            stage=found.stage,
            note=found.note,
        )

    def learn(self, case: Case, flagged: bool) -> None:
        """Take in what the gateway runs. Versions are facts: flagged cases count too."""
        event = _latest(case)
        if not event.gateway_name or not event.gateway_version:
            return
        key = compound_key(event.gateway_name)
        gateway, software = self._gateways.get(key) or _Gateway(), _software(event)
        if gateway.events == ESTABLISHED and (gateway.runs(software) or self._found(case)):
            return  # known; or to be said yet, with the next case
        gateway = gateway.with_(software)
        self._gateways.put(key, gateway, gateway.events == ESTABLISHED)

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """See `StreamDetector.changes`."""
        return self._gateways.changes()

    def snapshot(self) -> dict[str, bytes]:
        """See `StreamDetector.snapshot`."""
        return self._gateways.snapshot()

    def load(self, key: str, value: bytes | None) -> None:
        """See `StreamDetector.load`."""
        self._gateways.load(key, value)

    def _found(self, case: Case) -> _Found | None:
        if case.outcome is not None:
            return _tampered(case.outcome) or self._unguarded(case.request.tenant_id, case.outcome)
        leaves = case.route is None or self._rules.leaves(case.route)
        if case.prompt.carries and leaves and (found := self._carried(case.prompt.carries)):
            return found
        return self._broken(case, case.route) if case.route is not None and leaves else None

    def _carried(self, carries: list[str]) -> _Found | None:
        for name in carries:
            if name.startswith("canary:"):
                return _Found("canary_credential", "prompt", f"{name} is in a prompt")
        for kind, prefix in (("egress_secret", "secret"), ("egress_personal", "personal")):
            names = [name.partition(":")[2] for name in carries if name.startswith(prefix)]
            limit = self._thresholds[f"custody.{prefix}s"]
            if names and len(names) >= limit:
                what = ", ".join(sorted(set(names)))
                return _Found(kind, "prompt", f"a prompt that leaves carries: {what}", float(len(names)), limit)
        return None

    def _broken(self, case: Case, route: Route) -> _Found | None:
        rule = self._rules.broken(case.request.tenant_id, route)
        if not rule:
            return None
        how = "a fail-over" if route.fallback_from or route.attempt else "the route"
        return _Found("route_rule_broken", rule, f"{how} breaks the tenant's rule on the {rule}")

    def _unguarded(self, tenant: str, outcome: Outcome) -> _Found | None:
        if outcome.guardrail_verdict or outcome.response_status != "success":
            return None
        if outcome.outcome_source not in _ANSWERED:  # what others say of it later has no verdict of a guardrail
            return None
        if not self._rules.needs_guardrail(tenant):
            return None
        return _Found(
            "route_rule_broken", "guardrail", "an answer carries no verdict of a guardrail, which is the rule"
        )

    def _changed(self, case: Case) -> _Found | None:
        event = _latest(case)
        if not event.gateway_name or not event.gateway_version:
            return None
        gateway = self._gateways.get(compound_key(event.gateway_name))
        software = _software(event)
        if gateway is None or gateway.events < ESTABLISHED or gateway.runs(software):
            return None
        upgraded = all(version != software[0] for version, _ in gateway.known)
        what = "version" if upgraded else "plug-ins"
        return _Found("gateway_changed", what, f"a gateway runs {what} that it did not run before")

    def _could_check(self, case: Case) -> bool:
        if _latest(case).gateway_version:
            return True
        if case.outcome is not None:
            return _has_hashes(case.outcome) or self._rules.needs_guardrail(case.request.tenant_id)
        return self._rules.recognises or (case.route is not None and self._rules.judges(case.request.tenant_id))


def _latest(case: Case) -> Event:
    return case.outcome or case.route or case.request


def _software(event: Event) -> Software:
    return event.gateway_version, event.gateway_plugins_hash


def _has_hashes(outcome: Outcome) -> bool:
    return bool(
        (outcome.response_hash_provider and outcome.response_hash_client)
        or (outcome.tool_calls_hash_provider and outcome.tool_calls_hash_client)
    )


def _tampered(outcome: Outcome) -> _Found | None:
    """What the gateway says of the answer; what a guardrail masked was changed on purpose."""
    if outcome.canary_hits:
        return _Found(
            "canary_credential", "response", f"the gateway saw {len(outcome.canary_hits)} canaries in use"
        )
    if outcome.guardrail_action in ("modify", "block"):
        return None
    if _differ(outcome.tool_calls_hash_provider, outcome.tool_calls_hash_client):
        return _Found("tool_calls_changed", "hash", "the client got other tool calls than the provider had sent")
    if _differ(outcome.response_hash_provider, outcome.response_hash_client):
        return _Found("response_changed", "hash", "the client got another answer than the provider had sent")
    return None


def _differ(provider: str, client: str) -> bool:
    """Whether both are there, made the same way (`ALGORITHM:KEY:...`), and not equal."""
    if not provider or not client or provider == client:
        return False
    return provider.rpartition(":")[0] == client.rpartition(":")[0]
