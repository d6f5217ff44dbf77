"""One window: its uses, the contexts that it stood in, and what speaks for its being a trigger."""

import math
from collections import Counter
from collections.abc import Sequence

import msgspec

from schemas.verdicts import Direction, Finding, Place, WindowUse

MOST_USES = 48  # remembered of a window
MOST_CONTEXTS = 12
LEAST_REST = 6  # hashes that a context needs
MOST_SHARED = 0.12  # Jaccard: from here on it is much the same context again
AT_ONE_PLACE = 0.75  # share of the uses: content is now here, now there
OFTEN = 0.34  # share of its uses in which a text's token is
MOST_TOKENS = 96  # that are counted
MOST_FAILS = 4  # each doubles the evidence that a window needs
_GAUSS = (0.5, 1.0)  # rates of the wealth on residuals


class Use(msgspec.Struct, array_like=True, gc=False):
    """One use of a window."""

    finding_id: str
    request_id: str
    tenant_id: str
    principal_hash: str
    router_name: str
    event_ms: int | None
    trigger_id: str = ""  # of the catalogue's, where it has a fragment of one


class Campaign(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """A window and what became of it."""

    window: str
    direction: Direction
    last_ms: int
    uses: list[Use] = []  # the first MOST_USES
    count: int = 0
    contexts: list[list[int]] = []
    cosines: float = 0.0  # between contexts, their sum
    evidence: float = 0.0
    usual_uses: int = 0  # at which it had long been in use
    places: dict[str, int] = {}
    scale: float = 0.0
    counts: dict[int, int] = {}  # of its uses' tokens (WindowUse.tokens)
    windows: int = 0  # that were counted
    text: str = ""
    parts: int = 0  # that the text has
    wealth: list[float] = []  # logs, of the test on residuals
    asked: str = ""  # the transplant that it waits for
    undecided: bool = False  # the last one, for want of queries
    denied: bool = False  # a router was asked, and is not moved
    fails: int = 0
    state: str = ""  # "", "named" or "usual"
    lifts: list[float] = []
    stage: str = ""

    @property
    def tokens(self) -> list[int]:
        """Those of the text that comes back: in a third of its uses or more, since a trigger mutates."""
        return [token for token, count in self.counts.items() if count >= OFTEN * self.windows]

    def add_window(self, tokens: list[int]) -> None:
        """Count a use's tokens; of too many the rarest go."""
        self.windows += 1
        for token in set(tokens):
            self.counts[token] = self.counts.get(token, 0) + 1
        if len(self.counts) > MOST_TOKENS:
            kept = sorted(self.counts, key=self.counts.__getitem__, reverse=True)[: MOST_TOKENS // 2]
            self.counts = {token: self.counts[token] for token in kept}

    def add(self, use: Use) -> None:
        """Count a use."""
        self.count += 1
        if len(self.uses) < MOST_USES:
            self.uses = [*self.uses, use]

    def gather(self, finding: Finding, use: WindowUse, margin: float) -> bool:
        """Take in what a use says of a window that has no name yet; whether its context is a new one.

        `margin`: standard deviations that a residual must exceed to speak for it.
        """
        if self.direction != finding.direction:
            self.direction, self.evidence, self.wealth = finding.direction, 0.0, []
        self.evidence = max(self.evidence, finding.score)
        self.usual_uses += use.usual
        self.scale = use.scale
        self.places[use.place] = self.places.get(use.place, 0) + 1
        if use.parts >= self.parts and (use.text or not self.text) and not self.undecided:
            self.text, self.parts = use.text, use.parts
        is_new = self._add_context(use.rest)
        if is_new:
            told = (use.residual if self.direction == "up" else -use.residual) - margin
            before = self.wealth or [0.0] * len(_GAUSS)
            self.wealth = [log + rate * told - rate * rate / 2 for log, rate in zip(before, _GAUSS, strict=True)]
        return is_new

    def _add_context(self, rest: list[int]) -> bool:
        new = set(rest)
        if len(new) < LEAST_REST:
            return False
        shared = [(len(new & set(known)), len(known)) for known in self.contexts]
        if any(both >= MOST_SHARED * (size + len(new) - both) for both, size in shared):
            return False
        if len(self.contexts) < MOST_CONTEXTS:
            self.cosines += sum(both / math.sqrt(size * len(new)) for both, size in shared)
            self.contexts = [*self.contexts, rest]
        return True

    def begin_anew(self, fails: int = 1) -> None:
        """Forget what was gathered; each fail doubles what is needed the next time."""
        self.fails = min(MOST_FAILS, self.fails + fails)
        self.contexts, self.cosines, self.evidence, self.count = [], 0.0, 0.0, 0
        self.uses, self.places, self.wealth, self.usual_uses = [], {}, [], 0
        self.text, self.parts, self.undecided = "", 0, False

    @property
    def usual(self) -> bool:
        """Whether it had long been in use at most of its uses."""
        return 2 * self.usual_uses > self.count

    @property
    def contexts_alike(self) -> float:
        """Mean cosine between its contexts: near 0 where they have nothing to do with each other."""
        contexts = len(self.contexts)
        return self.cosines / max(1, contexts * (contexts - 1) / 2)

    @property
    def place(self) -> Place:
        """Where in the prompts it stands, nearly always; `inside` if now here, now there."""
        enough = AT_ONE_PLACE * sum(self.places.values())
        edges: tuple[Place, ...] = ("head", "tail")
        return next((edge for edge in edges if self.places.get(edge, 0) >= enough), "inside")

    @property
    def tenants(self) -> int:
        """How many tenants its remembered uses are of."""
        return len({use.tenant_id for use in self.uses})

    @property
    def is_of_one(self) -> bool:
        """Whether all its uses are one tenant's, or most one caller's: a template of its own looks like that."""
        callers = Counter((use.tenant_id, use.principal_hash) for use in self.uses)
        return self.tenants == 1 or 2 * max(callers.values()) > len(self.uses)

    @property
    def log_wealth(self) -> float:
        """Of the test on residuals, all its rates together."""
        most = max(self.wealth)
        return most + math.log(math.fsum(math.exp(log - most) for log in self.wealth) / len(self.wealth))

    @property
    def lift(self) -> float:
        """Mean of what the transplant's probes were moved by, in standard deviations."""
        return math.fsum(self.lifts) / len(self.lifts)

    @property
    def lift_text(self) -> str:
        """How far it moves the router, for people."""
        if not self.lifts:
            return f"evidence {self.evidence:.0f} sd {self.direction}, not tried on the router: weaker"
        low, high = interval(self.lifts)
        return f"lift {self.lift:.1f} sd ({low:.1f} to {high:.1f}) {self.direction}"


def interval(lifts: Sequence[float]) -> tuple[float, float]:
    """The mean's 95 % interval, by the normal approximation."""
    mean = math.fsum(lifts) / len(lifts)
    variance = math.fsum((lift - mean) ** 2 for lift in lifts) / max(1, len(lifts) - 1)
    half = 1.96 * math.sqrt(variance / len(lifts))
    return mean - half, mean + half
