"""What the detect lane says: one verdict a request, and findings that the fleet lane turns into alerts."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from schemas.events import Time

Direction = Literal["", "up", "down"]  # which way the route is pushed: up is the wallet, down is quality
Category = Literal[
    "cost_escalation", "quality_hijack", "safety_bypass", "feedback_poisoning", "custody", "pipeline"
]
Severity = Literal["info", "warning", "critical"]
Place = Literal["head", "tail", "inside"]
UnjudgedReason = Literal[
    "no_text",  # no prompt text, head and tail, or embedding: the text detectors had nothing to read
    "route_missing",  # and nothing else could judge it either
    "budget",  # the guard's time budget, or an overload policy
    "error",  # a detector failed on this request; the counter and the log say which
]


class WindowUse(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """A window that came back: one use of it, for the fleet lane to add up with others. Never in a verdict."""

    bodies: int  # distinct ones so far, of this partition
    residual: float  # how far the score is above what the rest of the prompt gets, in standard deviations
    scale: float = 0.0  # one standard deviation of this router's scores
    place: Place = "inside"
    parts: int = 1  # shingles of it that came back: a mutated window is seldom whole
    usual: bool = False  # used no more often than it was before: not new
    tokens: list[int] = []  # hashes of the window's own tokens, in their order
    rest: list[int] = []  # hashes of the rarest tokens outside of the window
    requests: int = 0  # judged by this partition since its last candidate: what transplants are paid from
    text: str = ""  # of the window, only where the settings let it travel


class Transplant(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """A window to be put into probe prompts, scored by the router itself; with `lifts`: what it did to them."""

    test_id: str
    text: str
    place: Place = "inside"
    direction: Direction = "up"
    margin: float = 0.0  # standard deviations that a win needs
    needed: float = 0.0  # log wealth at which it is believed
    probes: int = 0  # at most
    scale: float = 1.0  # one standard deviation of the router's scores
    lifts: list[float] = []  # in the window's direction, in that scale
    failed: str = ""  # why the router could not be asked: an error's type

    @property
    def is_answer(self) -> bool:
        """Whether it has been tried."""
        return bool(self.lifts or self.failed)


class PriceLevels(msgspec.Struct, kw_only=True, gc=False):
    """Ten minutes of a partition's prices, for the fleet lane to add up with others'. Never in a verdict."""

    bucket: int  # their begin, seconds since 1970, in the partition's stream time
    # By tenant (empty: of the rest): sums of weights, of their squares, and of residuals by weight. A residual is
    # how far a request's log cost is above its caller's usual one, in the caller's own standard deviations.
    sums: dict[str, tuple[float, float, float]]


class Reason(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """What one detector saw in one request. A detector that could not judge gives no reason at all."""

    detector: str
    detector_version: str
    score: float
    threshold: float
    threshold_version: int = 0
    flagged: bool = False
    kind: str = ""  # the kind of finding it makes when flagged (`detectors/kinds.py`)
    stage: str = ""  # the stage that decided: lexical, static, transformer, ...
    direction: Direction = ""
    expected: float | None = None
    seen: float | None = None
    span: tuple[int, int] | None = None  # characters, in the prompt's head (from 0) or tail (from -n)
    window: str = ""  # fingerprint of the part of the prompt that did it
    trigger_id: str = ""
    trigger_version: int = 0
    share: float | None = None  # part of the trigger's information that was found, 0..1
    note: str = ""  # one sentence of ours, never text from the event
    use: WindowUse | None = None  # of kinds that are evidence only
    levels: PriceLevels | None = None  # likewise


class Verdict(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """Exactly one per request event. Deterministic: made from the log, holds no clock of ours."""

    verdict_id: str  # from the request's event_id: what is judged again replaces itself
    request_id: str
    event_id: str
    event_time: Time
    time: Time  # stream time (the broker's) at which it was given
    tenant_id: str
    principal_hash: str
    decision: Literal["clean", "flagged", "unjudged"]
    unjudged_reason: UnjudgedReason | Literal[""] = ""
    reasons: list[Reason] = []  # flagged ones first, then by score over threshold
    scores: dict[str, float] = {}  # of every detector that could judge: what-if questions need them all
    unable: list[str] = []  # detectors that answered None
    route_missing: bool = False
    router_name: str = ""
    router_version: str = ""
    selected_model: str = ""
    tier: str = ""
    tier_rank: int | None = None
    difficulty_score: float | None = None
    cost_estimate_usd: float | None = None
    cache_hit: bool = False
    fallback_from: str = ""
    prompt_chars: int = 0
    prompt_hash: str = ""
    likeness: int = 0  # 64 signs of the prompt's embedding: near-duplicates differ in few of them; 0: none
    catalogue_version: int = 0
    thresholds_version: int = 0
    partition: int = 0
    offset: int = 0  # of the request event


class Finding(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One thing worth an alert. `labels` are the alert's identity; all else is evidence."""

    finding_id: str
    kind: str
    category: Category
    severity: Severity
    time: Time  # stream time
    labels: dict[str, str]
    detector: str
    detector_version: str
    tenant_id: str = ""
    principal_hash: str = ""
    router_name: str = ""
    gateway_name: str = ""
    request_id: str = ""
    event_time: Time | None = None  # of the request that it is about, for time-to-alert
    score: float = 0.0
    threshold: float = 0.0
    threshold_version: int = 0
    direction: Direction = ""
    stage: str = ""
    expected: float | None = None
    seen: float | None = None
    window: str = ""
    trigger_id: str = ""
    trigger_version: int = 0
    catalogue_version: int = 0
    extra_cost_usd: Annotated[float, Meta(ge=0)] | None = None
    request_ids: list[str] = []
    likeness: str = ""  # the verdict's in hex, empty for none: the very same prompt again has the same
    note: str = ""
    campaign: str = ""  # alert_id, in what the fleet lane tells the alerts of a campaign's members
    use: WindowUse | None = None
    transplant: Transplant | None = None
    levels: PriceLevels | None = None
