"""The guard: what the lane judges a prompt by, in the gateway's own process and before it routes.

Callers ask from threads (`judge`) or from an event loop (`judge_async`); one thread of the guard's own judges
whatever waits, all in one batch. So a batch forms while the one before it is judged, and a lone caller waits for
nobody. Who cannot be answered within the budget is told `unjudged: budget`: what that means is the gateway's
explicit choice, `fail`. Texts are held while they are judged, and by nobody afterwards.
"""

import asyncio
import logging
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from types import TracebackType
from typing import Literal, NamedTuple

from detectors.contract import Case, PromptFacts, StreamDetector
from detectors.failures import where
from detectors.kinds import KINDS
from detectors.panel import PromptPanel
from detectors.verdict import ask, verdict_of
from schemas.events import Request, without_text
from schemas.verdicts import UnjudgedReason, Verdict

log = logging.getLogger(__name__)

MAX_BATCH = 64  # prompts judged together; more waiting callers are the next batch
BUDGET_S = 0.05

Fail = Literal["open", "closed"]


class _Asked(NamedTuple):
    request: Request
    answer: "Future[Verdict]"


class Guard:
    """A prompt panel, and stream detectors that need no route, behind one thread.

    The stream detectors' log is this process's own traffic, their time its requests' `event_time`. The panel's
    catalogue and thresholds may be swapped at any time (`PromptPanel.swap_catalogue`, `Thresholds.swap`).
    """

    def __init__(
        self, panel: PromptPanel, detectors: Sequence[StreamDetector] = (), *,
        fail: Fail, refuse: Collection[str] = ("known_trigger",), budget_s: float = BUDGET_S,
    ) -> None:  # fmt: skip
        """Load everything and judge one prompt, so that the first caller does not wait for it (seconds).

        `fail`: whether a request that could not be judged may pass (`open`) or not (`closed`). `refuse`: the kinds
        of finding (`detectors/kinds.py`) that a request must not have. `budget_s`: the longest that a caller waits.

        Raises:
            ValueError: `fail` is neither, a kind does not exist, or the budget is not positive.
        """
        if fail not in ("open", "closed"):
            raise ValueError(f"fail is {fail!r}: what cannot be judged must pass (open) or not (closed)")
        if unknown := set(refuse) - set(KINDS):
            raise ValueError(f"no such kind of finding: {', '.join(sorted(unknown))}")
        if not budget_s > 0:
            raise ValueError("the budget must be positive")
        self.panel = panel
        self.refuse = frozenset(refuse)
        self.passes_unjudged = fail == "open"
        self._budget_s = budget_s
        self._detectors = detectors
        self._waiting: SimpleQueue[_Asked | None] = SimpleQueue()
        panel.warm_up()
        self._thread = threading.Thread(target=self._run, name="pointsman-guard", daemon=True)
        self._thread.start()

    def judge(self, request: Request) -> Verdict:
        """The verdict on a request, from any thread; never raises, and never waits longer than the budget."""
        answer = self._ask(request)
        try:
            return answer.result(self._budget_s)
        except TimeoutError:
            answer.cancel()
            return self._unjudged(request, "budget")

    async def judge_async(self, request: Request) -> Verdict:
        """As `judge`, for an event loop, which stays free meanwhile."""
        answer = asyncio.wrap_future(self._ask(request))
        try:
            async with asyncio.timeout(self._budget_s):
                return await answer
        except TimeoutError:
            return self._unjudged(request, "budget")

    def admits(self, verdict: Verdict) -> bool:
        """Whether the gateway should route the request."""
        if verdict.decision == "unjudged":
            return self.passes_unjudged
        return not any(reason.flagged and reason.kind in self.refuse for reason in verdict.reasons)

    def close(self) -> None:
        """Answer who waits, and end the thread; later callers are told `unjudged: budget`."""
        self._waiting.put(None)
        self._thread.join()

    def __enter__(self) -> "Guard":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: Request) -> "Future[Verdict]":
        asked = _Asked(request, Future())
        self._waiting.put(asked)
        return asked.answer

    # --- the guard's thread

    def _run(self) -> None:
        while self._judge_waiting():
            pass

    def _judge_waiting(self) -> bool:
        """Judge who waits, at least one, in one batch; False: the guard was closed."""
        taken = [self._waiting.get()]
        while len(taken) < MAX_BATCH and not self._waiting.empty():  # this thread alone takes
            taken.append(self._waiting.get())
        # Who has gone, or was told `budget`, is not judged: an overload must not feed itself.
        self._answer([each for each in taken if each and each.answer.set_running_or_notify_cancel()])
        return all(taken)

    def _answer(self, batch: Sequence[_Asked]) -> None:
        try:
            facts = self.panel.facts([asked.request for asked in batch])
            verdicts = [self._verdict(asked.request, fact) for asked, fact in zip(batch, facts, strict=True)]
        except Exception as error:
            log.error("the guard could not judge a batch of %d: %s", len(batch), where(error))
            verdicts = [self._unjudged(asked.request, "error") for asked in batch]
        for asked, verdict in zip(batch, verdicts, strict=True):
            asked.answer.set_result(verdict)

    def _verdict(self, request: Request, facts: PromptFacts) -> Verdict:
        case = Case(
            time=request.event_time.timestamp(), request=without_text(request), route=None, prompt=facts,
            flagged=any(reason.flagged for reason in facts.reasons),
        )  # fmt: skip
        ask(self.panel.thresholds, self._detectors, case)
        return verdict_of("guard", self.panel, request, facts, request.event_time)

    def _unjudged(self, request: Request, why: UnjudgedReason) -> Verdict:
        facts = PromptFacts(catalogue_version=self.panel.catalogue.version)
        verdict = verdict_of("guard", self.panel, request, facts, request.event_time)
        verdict.decision, verdict.unjudged_reason = "unjudged", why
        return verdict
