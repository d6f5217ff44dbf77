"""Unseen trigger text in one prompt, as a prompt detector."""

from pathlib import Path

from detectors.contract import Answer
from detectors.novelty import artefact
from detectors.text import PromptBatch
from detectors.thresholds import Thresholds
from schemas.verdicts import Reason


class NoveltyDetector:
    """Says whether an end of a prompt reads like text that an optimiser made.

    The score is a benign quantile in [0, 1). Above `novelty.flag` the prompt is flagged; from `novelty.prior` on it
    is a reason that other detectors may add to, not a finding.
    """

    name = "novelty"
    kinds = ("novel_text",)

    def __init__(self, thresholds: Thresholds, path: Path = artefact.PATH) -> None:
        """Load an artefact: the shipped one, or one that `pointsman novelty fit` made of a fleet's own prompts."""
        self._thresholds = thresholds
        self._model, self._scale, about = artefact.load(path)
        self.version = str(about["version"])

    def score_batch(self, prompts: PromptBatch) -> list[Answer]:
        """One answer a prompt; None where the event has no text."""
        scores = self._scale.score(self._model.log_odds(prompts.heads, prompts.tails)).tolist()
        flag = self._thresholds["novelty.flag"]
        near = min(self._thresholds["novelty.prior"], self._thresholds.strictest("novelty.flag"))
        return [
            None if not readable else score if score < near else self._reason(score, flag)
            for readable, score in zip(prompts.readable.tolist(), scores, strict=True)
        ]

    def _reason(self, score: float, flag: float) -> Reason:
        return Reason(
            detector=self.name,
            detector_version=self.version,
            score=score,
            threshold=flag,
            threshold_version=self._thresholds.version,
            flagged=score >= flag,
            kind=self.kinds[0],
            stage="tagger",
            note="an end of the prompt reads like optimised text",
        )
