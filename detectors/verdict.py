"""From prompt facts to a verdict: what the lane and the guard have in common."""

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from detectors.contract import Case, PromptFacts, StreamDetector
from detectors.failures import where
from detectors.panel import PromptPanel, add_answer
from detectors.thresholds import Thresholds
from schemas.codec import stable_id
from schemas.events import Request
from schemas.verdicts import UnjudgedReason, Verdict

log = logging.getLogger(__name__)


def ask(thresholds: Thresholds, detectors: Sequence[StreamDetector], case: Case) -> None:
    """Ask every stream detector, in order, then have each take the case in; answers are added to `case.prompt`."""
    facts = case.prompt
    for detector in detectors:
        try:
            answer = detector.score(case)
        except Exception as error:
            log.error("detector %s failed: %s", detector.name, where(error))
            facts.failed.append(detector.name)
            continue
        add_answer(facts, detector.name, answer, thresholds, case.request.tenant_id)
    flagged = any(reason.flagged for reason in facts.reasons)
    for detector in detectors:
        try:
            detector.learn(case, flagged)
        except Exception as error:
            log.error("detector %s could not learn: %s", detector.name, where(error))
            facts.failed.append(detector.name)


def verdict_of(author: str, panel: PromptPanel, request: Request, facts: PromptFacts, time: datetime) -> Verdict:
    """The verdict that the facts make. `author`: of the verdict's id, so that the guard's and the lane's differ."""
    flagged = any(reason.flagged for reason in facts.reasons)
    unjudged: UnjudgedReason | Literal[""] = "" if flagged else why_unjudged(panel, facts)
    return Verdict(
        verdict_id=stable_id(author, request.tenant_id, request.principal_hash, request.event_id),
        request_id=request.request_id,
        event_id=request.event_id,
        event_time=request.event_time,
        time=time,
        tenant_id=request.tenant_id,
        principal_hash=request.principal_hash,
        decision="unjudged" if unjudged else "flagged" if flagged else "clean",
        unjudged_reason=unjudged,
        reasons=sorted(facts.reasons, key=lambda r: (not r.flagged, r.threshold - r.score, r.detector)),
        scores=facts.scores,
        unable=facts.unable,
        prompt_chars=request.prompt_chars,
        prompt_hash=request.prompt_hash,
        likeness=facts.likeness,
        catalogue_version=facts.catalogue_version,
        thresholds_version=facts.thresholds_version,
    )


def why_unjudged(panel: PromptPanel, facts: PromptFacts) -> UnjudgedReason | Literal[""]:
    """Why nothing could be said of a prompt that is not flagged; empty: it was judged."""
    if facts.failed:
        return "error"
    names = {detector.name for detector in panel.detectors}
    return "no_text" if names and names <= set(facts.unable) else ""
