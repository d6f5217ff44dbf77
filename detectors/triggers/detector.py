"""The detector of known triggers: lexical match, then semantic, over a catalogue that is swapped under use."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.audited import NEAR_SCORE
from detectors.budget import Grant
from detectors.catalogue import Catalogue
from detectors.contract import Answer
from detectors.embedding import StaticEmbedding, static_embedding
from detectors.spans import character_span
from detectors.text import PromptBatch, tokenise
from detectors.thresholds import Thresholds
from detectors.triggers.lexical import LexicalIndex, LexicalMatches, flag_bits, views_of
from detectors.triggers.semantic import SemanticIndex, SemanticMatches
from detectors.triggers.transformer import SecondStage
from schemas.triggers import Trigger
from schemas.verdicts import Reason

# Of the lexical threshold: triggers of one climber share words, so that of many entries one is like a stranger.
WHOLE = 1.75
NEAR_COSINE = 0.05  # below the semantic threshold, likewise


@dataclass(frozen=True, slots=True)
class _Indexes:
    """All that one catalogue needs at match time: swapped as one reference."""

    catalogue: Catalogue
    lexical: LexicalIndex
    lexical_triggers: list[Trigger]
    semantic: SemanticIndex
    semantic_triggers: list[Trigger]


def _build(catalogue: Catalogue, embedding: StaticEmbedding) -> _Indexes:
    lexical = [trigger for trigger in catalogue.triggers if trigger.kind != "semantic"]
    semantic = [trigger for trigger in catalogue.triggers if trigger.kind != "lexical"]
    return _Indexes(
        catalogue,
        LexicalIndex(views_of([trigger.text for trigger in lexical])),
        lexical,
        SemanticIndex(embedding, tokenise([trigger.text for trigger in semantic])),
        semantic,
    )


def spanned(prompts: PromptBatch, i: int, span: tuple[int, int] | None) -> str:
    """The text of a span as reasons give it; the whole head where there is none."""
    if span is None:
        return prompts.heads[i]
    begin, end = span
    text = prompts.tails[i] if begin < 0 else prompts.heads[i]
    return text[begin : end or None]


class TriggerDetector:
    """Prompt detector `triggers`. Where a trigger was seen to work (its `position`) does not limit the match.

    An answer is the lexical score in bits where nothing is near; else the Reason of the matcher that decided, on
    its own scale: bits (stage `lexical`; `fragment` where so few that a stranger grown in the same way shares them
    too), or a cosine (`static`, `transformer`).
    """

    name = "triggers"
    version = "1"
    kinds = ("known_trigger",)

    def __init__(
        self, thresholds: Thresholds, catalogue: Catalogue, second_stage: SecondStage | None = None
    ) -> None:
        self._thresholds = thresholds
        self._second_stage = second_stage
        self._embedding = static_embedding()
        self._indexes = _build(catalogue, self._embedding)

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue in use."""
        return self._indexes.catalogue

    def swap(self, catalogue: Catalogue) -> None:
        """Use another catalogue from the next batch on. Builds its index in the calling thread."""
        self._indexes = _build(catalogue, self._embedding)

    def score_batch(self, prompts: PromptBatch, grant: Grant | None = None) -> list[Answer]:
        """One answer a prompt; None where the event carries no text. `grant`: which may go to the second stage."""
        indexes = self._indexes  # one reference for the whole batch, whatever `swap` does meanwhile
        least_share = self._thresholds["triggers.share"]
        lexical = indexes.lexical.match(prompts.tokens, prompts.lengths, least_share)
        bits = self._thresholds["triggers.bits"]
        limit = flag_bits(len(indexes.lexical), bits)
        near = min(NEAR_SCORE * limit, limit - bits + self._thresholds.strictest("triggers.bits"))
        answers: list[Answer] = [
            score if readable else None
            for score, readable in zip(lexical.score.tolist(), prompts.readable.tolist(), strict=True)
        ]
        for i in np.flatnonzero(lexical.score >= near).tolist():
            trigger = indexes.lexical_triggers[lexical.entry[i]]
            answers[i] = self._lexical_reason(prompts, i, lexical, trigger, limit)
        if len(indexes.semantic):
            self._match_meaning(prompts, indexes, answers, grant)
        return answers

    def _lexical_reason(
        self, prompts: PromptBatch, i: int, matches: LexicalMatches, trigger: Trigger, limit: float
    ) -> Reason:
        begin, end = int(matches.begin[i]), int(matches.end[i])
        reason = self._reason(trigger, float(matches.score[i]), limit, character_span(prompts, i, begin, end))
        reason.stage = "lexical" if reason.score >= WHOLE * limit else "fragment"
        reason.share = float(matches.share[i])
        reason.note = f"{matches.share[i]:.0%} of the trigger's information within {end - begin} tokens"
        return reason

    def _match_meaning(
        self, prompts: PromptBatch, indexes: _Indexes, answers: list[Answer], grant: Grant | None
    ) -> None:
        """Replace answers that the lexical matcher did not flag where a stretch means what an entry means."""
        matches = indexes.semantic.match(prompts)
        limit = self._thresholds["triggers.cosine"]
        granted: list[Reason] = []
        pairs: list[tuple[str, str]] = []
        for i in np.flatnonzero(matches.cosine >= limit - NEAR_COSINE).tolist():
            if not (isinstance(answer := answers[i], Reason) and answer.flagged):
                trigger = indexes.semantic_triggers[matches.entry[i]]
                answers[i] = reason = self._semantic_reason(prompts, i, matches, trigger, limit)
                if self._second_stage is None or grant is None:
                    continue
                if grant(i):
                    granted.append(reason)
                    pairs.append((spanned(prompts, i, reason.span), trigger.text))
                else:
                    reason.note += "; the transformer's budget is spent"
        if self._second_stage is not None and pairs:
            self._take_second_opinion(self._second_stage.cosines(pairs), granted)

    def _semantic_reason(
        self, prompts: PromptBatch, i: int, matches: SemanticMatches, trigger: Trigger, limit: float
    ) -> Reason:
        begin, end = int(matches.begin[i]), int(matches.end[i])
        reason = self._reason(trigger, float(matches.cosine[i]), limit, character_span(prompts, i, begin, end))
        reason.stage = "static"
        reason.note = f"a stretch of {end - begin} tokens means what the trigger means"
        return reason

    def _reason(self, trigger: Trigger, score: float, limit: float, span: tuple[int, int] | None) -> Reason:
        return Reason(
            detector=self.name,
            detector_version=self.version,
            score=score,
            threshold=limit,
            threshold_version=self._thresholds.version,
            flagged=score > limit,
            kind="known_trigger",
            direction=trigger.direction,
            span=span,
            window=f"trigger:{trigger.trigger_id}",
            trigger_id=trigger.trigger_id,
            trigger_version=trigger.version,
        )

    def _take_second_opinion(self, cosines: NDArray[np.float32], reasons: list[Reason]) -> None:
        limit = self._thresholds["triggers.transformer_cosine"]
        for cosine, reason in zip(cosines.tolist(), reasons, strict=True):
            reason.stage = "transformer"
            reason.score, reason.threshold, reason.flagged = cosine, limit, cosine > limit
