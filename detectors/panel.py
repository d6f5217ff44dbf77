"""The prompt detectors of a worker, together: prompts in, facts out, text dropped."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np

from detectors.audited import for_tenant
from detectors.budget import Grant
from detectors.catalogue import Catalogue, shipped
from detectors.contract import Answer, PromptDetector, PromptFacts
from detectors.custody.recognisers import Recognisers
from detectors.custody.rules import Rules
from detectors.discovery.windows import pack_windows
from detectors.embedding import static_embedding
from detectors.failures import where
from detectors.novelty import artefact
from detectors.novelty.detector import NoveltyDetector
from detectors.probing import sketches
from detectors.text import PromptBatch, read_prompts
from detectors.thresholds import Thresholds
from detectors.triggers.detector import TriggerDetector
from detectors.triggers.transformer import SecondStage
from schemas.events import Request
from schemas.verdicts import Reason

log = logging.getLogger(__name__)


class CatalogueDetector(PromptDetector, Protocol):
    """A prompt detector over a trigger catalogue: `detectors.triggers.detector.TriggerDetector`."""

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue in use."""

    def swap(self, catalogue: Catalogue) -> None:
        """Use another one from the next batch on."""

    def score_batch(self, prompts: PromptBatch, grant: Grant | None = None) -> list[Answer]:
        """See `PromptDetector`; `grant`: which prompts may go to a dear second stage."""


class PromptPanel:
    """Shared by all partitions of a worker, by replay and by the guard: it holds artefacts, no state."""

    def __init__(
        self,
        triggers: CatalogueDetector,
        others: Sequence[PromptDetector],
        thresholds: Thresholds,
        rules: Rules | None = None,
        window_text: bool = False,
    ) -> None:
        """Take the detector of known triggers, whose catalogue can be swapped, and those without one.

        `rules`: of custody, which say whether prompts are searched for what must not leave.
        `window_text`: the facts keep the text of a prompt's ends, so that `discovery` can say what a window reads.
        """
        self.detectors: Sequence[PromptDetector] = (triggers, *others)
        self.thresholds = thresholds
        self._triggers = triggers
        self.rules = rules or Rules()
        self._embedding = static_embedding()
        file = self.rules.file
        self._recognisers = Recognisers(file.canaries, file.recognise) if self.rules.recognises else None
        self._window_text = window_text

    @property
    def catalogue(self) -> Catalogue:
        """The trigger catalogue in use."""
        return self._triggers.catalogue

    def swap_catalogue(self, catalogue: Catalogue) -> None:
        """Use another catalogue from the next batch on; builds its index in the calling thread."""
        self._triggers.swap(catalogue)

    def warm_up(self) -> None:
        """Judge one prompt: loads what is loaded at the first (seconds)."""
        now = datetime.fromtimestamp(0, UTC)
        self.facts([Request(event_id="0", event_time=now, request_id="0", tenant_id="0", principal_hash="0",
                            prompt_text="a first prompt")])  # fmt: skip

    def facts(self, requests: Sequence[Request], grant: Grant | None = None) -> list[PromptFacts]:
        """Judge prompts in one batch; the facts of one depend on others only through `grant`, asked in order."""
        if not requests:
            return []
        batch = read_prompts(requests)
        version, thresholds_version = self.catalogue.version, self.thresholds.version
        vectors = self._embedding.vectors(batch).astype(np.float16)
        likenesses = np.packbits(vectors > 0, axis=1).view(">u8")[:, 0].tolist()
        facts = [
            PromptFacts(
                vector=vector.tobytes(),
                likeness=likeness,
                sketch=sketch,
                windows=windows,
                catalogue_version=version,
                thresholds_version=thresholds_version,
            )
            if readable
            else PromptFacts(catalogue_version=version, thresholds_version=thresholds_version)
            for vector, likeness, sketch, windows, readable in zip(
                vectors,
                likenesses,
                sketches(batch),
                pack_windows(batch, self._window_text),
                batch.readable,
                strict=True,
            )
        ]
        for detector in self.detectors:
            try:
                if detector is self._triggers:
                    answers = self._triggers.score_batch(batch, grant)
                else:
                    answers = detector.score_batch(batch)
            except Exception as error:  # one prompt must not cost its neighbours their verdicts
                log.error(
                    "prompt detector %s failed on a batch of %d: %s", detector.name, len(requests), where(error)
                )
                answers = self._one_by_one(detector, requests, facts)
            for request, fact, answer in zip(requests, facts, answers, strict=True):
                add_answer(fact, detector.name, answer, self.thresholds, request.tenant_id)
        if self._recognisers is not None:
            for fact, request in zip(facts, requests, strict=True):
                fact.carries = self._recognisers.find(request)
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


def build_panel(
    thresholds: Thresholds,
    catalogue: Catalogue | None = None,
    second_stage: SecondStage | None = None,
    novelty_model: Path = artefact.PATH,
    rules: Rules | None = None,
    window_text: bool = False,
) -> PromptPanel:
    """The shipped prompt detectors, on a catalogue (default: the shipped one) and novelty's artefact."""
    triggers = TriggerDetector(thresholds, catalogue if catalogue is not None else shipped(), second_stage)
    return PromptPanel(triggers, (NoveltyDetector(thresholds, novelty_model),), thresholds, rules, window_text)


def add_answer(facts: PromptFacts, name: str, answer: Answer, thresholds: Thresholds, tenant_id: str) -> None:
    """File one detector's answer about a tenant's request where it belongs."""
    if answer is None:
        facts.unable.append(name)
    elif isinstance(answer, Reason):
        facts.scores[name] = answer.score
        facts.reasons.append(for_tenant(answer, thresholds, tenant_id))
    else:
        facts.scores[name] = answer
