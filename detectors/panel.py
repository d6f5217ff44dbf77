"""The prompt detectors of a worker, together: prompts in, facts out, text dropped."""

import logging
from collections.abc import Callable, Sequence

from detectors.contract import Answer, PromptDetector, PromptFacts
from detectors.text import PromptBatch, read_prompts
from detectors.thresholds import Thresholds
from schemas.events import Request
from schemas.verdicts import Reason

log = logging.getLogger(__name__)


class PromptPanel:
    """Shared by all partitions of a worker, by replay and by the guard: it holds artefacts, no state."""

    def __init__(
        self,
        detectors: Sequence[PromptDetector],
        thresholds: Thresholds,
        vectors: Callable[[PromptBatch], Sequence[bytes]],
        catalogue_version: Callable[[], int],
    ) -> None:
        """Take the detectors, and `vectors`: a batch's static embeddings, float16 bytes, empty where unreadable."""
        self.detectors = detectors
        self.thresholds = thresholds
        self._vectors = vectors
        self._catalogue_version = catalogue_version

    def facts(self, requests: Sequence[Request]) -> list[PromptFacts]:
        """Judge prompts in one batch; the facts of one do not depend on the others."""
        if not requests:
            return []
        batch = read_prompts(requests)
        version = self._catalogue_version()
        facts = [PromptFacts(vector=v, catalogue_version=version) for v in self._vectors(batch)]
        for detector in self.detectors:
            try:
                answers = detector.score_batch(batch)
            except Exception:  # one prompt must not cost its neighbours their verdicts
                log.exception("prompt detector %s failed on a batch of %d", detector.name, len(requests))
                answers = self._one_by_one(detector, requests, facts)
            for fact, answer in zip(facts, answers, strict=True):
                add_answer(fact.scores, fact.reasons, fact.unable, detector.name, answer)
        return facts

    def _one_by_one(
        self, detector: PromptDetector, requests: Sequence[Request], facts: Sequence[PromptFacts]
    ) -> list[Answer]:
        answers: list[Answer] = []
        for request, fact in zip(requests, facts, strict=True):
            try:
                answers += detector.score_batch(read_prompts([request]))
            except Exception:
                fact.failed.append(detector.name)
                answers.append(None)
        return answers


def add_answer(
    scores: dict[str, float], reasons: list[Reason], unable: list[str], name: str, answer: Answer
) -> None:
    """File one detector's answer where it belongs."""
    if answer is None:
        unable.append(name)
    elif isinstance(answer, Reason):
        scores[name] = answer.score
        reasons.append(answer)
    else:
        scores[name] = answer
