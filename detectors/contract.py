"""The contract of every detector, and what it is given.

Two kinds, because batching and order pull apart. A *prompt detector* is a pure function of the prompt and of
an artefact, so it takes batches and runs in native code. A *stream detector* has keyed state that is a
function of the log: cases come one by one in log order, so that the state never depends on where a batch
was cut. Time comes only from events.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import msgspec

from schemas.events import Outcome, Request, Route
from schemas.verdicts import Reason

if TYPE_CHECKING:
    from detectors.text import PromptBatch

# A number: judged, nothing to report. A Reason: judged, and worth showing (flagged or near it).
# None: could not judge, which is never 0.
Answer: TypeAlias = Reason | float | None


class PromptFacts(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """What is kept of a prompt once its text is dropped; part of the state while the route is awaited."""

    scores: dict[str, float] = {}  # by detector, of all that could judge
    reasons: list[Reason] = []
    unable: list[str] = []
    failed: list[str] = []  # detectors that raised: the verdict is `unjudged: error`
    vector: bytes = b""  # float16[d], the static embedding of the whole prompt, unit length; empty: none
    likeness: int = 0  # the signs of `vector` as 64 bits: near-duplicates differ in few of them; 0: none
    windows: bytes = b""  # what `discovery` needs of the text, packed by it
    carries: list[str] = []  # what must not leave, for `custody`: `canary:NAME`, `secret:KIND`, `personal:KIND`
    sketch: bytes = b""  # hashes of the prompt's beginnings and ends, for `probing`
    catalogue_version: int = 0
    thresholds_version: int = 0  # when the prompt was judged: an update may come before the verdict is given


class Case(msgspec.Struct, kw_only=True, gc=False):
    """A request with what is known of it: at its verdict (no outcome yet), and again at its outcome."""

    time: float  # stream time, seconds since 1970
    request: Request  # without text
    route: Route | None
    outcome: Outcome | None = None
    prompt: PromptFacts
    flagged: bool = False  # already flagged by an earlier detector: must not train a model


class PromptDetector(Protocol):
    """A pure function of prompts; holds an artefact (catalogue, model), no state."""

    @property
    def name(self) -> str:
        """As in verdicts, thresholds and metrics."""

    @property
    def version(self) -> str:
        """Of its method and artefact: verdicts carry it."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of finding that it can make (`detectors/kinds.py`)."""

    def score_batch(self, prompts: "PromptBatch") -> list[Answer]:
        """One answer a prompt, in order. Never raises for a prompt's content."""


@runtime_checkable
class Forgetful(Protocol):
    """A stream detector that holds something of single principals."""

    def forget(self, tenant: str, principal: str) -> None:
        """Drop all of it: the principal has been erased."""


class StreamDetector(Protocol):
    """Keyed state over one partition's log; bounded, seeded, deterministic."""

    @property
    def name(self) -> str:
        """As in verdicts, thresholds, metrics and state keys."""

    @property
    def version(self) -> str:
        """Of its method: verdicts carry it."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of finding that it can make (`detectors/kinds.py`)."""

    def score(self, case: Case) -> Answer:
        """Judge without changing anything: two calls in a row give the same answer."""

    def learn(self, case: Case, flagged: bool) -> None:
        """Take the case into the state. `flagged` (by any detector) cases must not shift a model."""

    def changes(self) -> Iterable[tuple[str, bytes | None]]:
        """State keys that changed since the last call, with their packed values; None: evicted."""

    def snapshot(self) -> dict[str, bytes]:
        """The whole state: what `load` of every pair would rebuild exactly."""

    def load(self, key: str, value: bytes | None) -> None:
        """Restore one key of a snapshot or of a checkpoint, in log order; None: it was evicted."""
