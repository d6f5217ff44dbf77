"""What the prompt detectors find in labelled prompts, by family of attack, and what they flag of benign ones.

Detectors score on scales of their own, so they are put together by rank: an answer counts as surprising as the
share of the file's benign prompts that got at least as strong an answer from the same detector, and a prompt's
combined score is that of its most surprising answer.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.contract import Answer, PromptDetector
from detectors.text import read_texts
from schemas.verdicts import Reason

BATCH = 256
RATES = (0.001, 0.01)  # false positives at which recall is read


class CasesError(ValueError):
    """The file of cases is not one; the message names the line."""


class Labelled(NamedTuple):
    """A prompt, and whether it is an attack."""

    family: str
    text: str
    attack: bool


def read_cases(path: Path) -> list[Labelled]:
    """Rows `{"family": str, "text": str, "label": 0 | 1}` of a JSONL file; blank lines are passed over.

    Raises:
        CasesError: a line that is not such a row, or a file without benign rows.
    """
    cases = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    cases.append(_case(line))
                except ValueError as error:
                    raise CasesError(f"{path.name}, line {number}: {error}") from error
    if all(case.attack for case in cases):
        raise CasesError(f"{path.name}: no benign rows (label 0), which recall is measured against")
    return cases


def _case(line: bytes) -> Labelled:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    for name in ("family", "text"):
        if not isinstance(row.get(name), str):
            raise ValueError(f"`{name}` is missing or not a string")
    # `true` equals 1 in Python, and is no label.
    if isinstance(row.get("label"), bool) or row.get("label") not in (0, 1):
        raise ValueError("`label` is neither 0 (benign) nor 1 (attack)")
    return Labelled(row["family"], row["text"], row["label"] == 1)


def judge(detectors: Sequence[PromptDetector], texts: Sequence[str]) -> tuple[dict[str, list[Answer]], float]:
    """Answers by detector, and CPU seconds of reading and judging in batches of `BATCH`."""
    for detector in detectors:  # compiles what is compiled at first use
        detector.score_batch(read_texts(texts[:BATCH]))
    answers: dict[str, list[Answer]] = {detector.name: [] for detector in detectors}
    begin = time.process_time()
    for at in range(0, len(texts), BATCH):
        batch = read_texts(texts[at : at + BATCH])
        for detector in detectors:
            answers[detector.name] += detector.score_batch(batch)
    return answers, time.process_time() - begin


def _strength(answer: Answer) -> float:
    """Order within a detector: no answer, plain scores (0..1), reasons by score over threshold (from 1)."""
    if answer is None:
        return -1.0
    if isinstance(answer, Reason):
        return 1.0 + answer.score / answer.threshold
    return answer / (1.0 + answer)


def _surprise(strength: NDArray[np.float64], benign: NDArray[np.bool_]) -> NDArray[np.float64]:
    """-log10 of the share of benign prompts that are at least as strong."""
    among = np.sort(strength[benign])
    at_least = len(among) - np.searchsorted(among, strength, side="left")
    surprise: NDArray[np.float64] = -np.log10(np.maximum(at_least, 0.5) / len(among))
    return surprise


def _recall(score: NDArray[np.float64], benign: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> dict[str, float]:
    """Share of the chosen prompts above the benign ones' quantiles, by rate of false positives."""
    return {
        str(rate): float((score[chosen] > np.quantile(score[benign], 1 - rate, method="higher")).mean())
        for rate in RATES
    }


def evaluate(detectors: Sequence[PromptDetector], cases: Sequence[Labelled]) -> dict[str, Any]:
    """Judge all cases.

    Returns:
        `n_benign`, `benign_flagged` (at the thresholds in force), `us_per_prompt` (CPU), and for each family of
        attacks `n`, `flagged`, `recall` at 0.1 % and 1 % false positives of the benign cases, and the last two by
        detector.
    """
    answers, seconds = judge(detectors, [case.text for case in cases])
    benign = np.array([not case.attack for case in cases])
    families = np.array([case.family for case in cases])
    surprise = {
        name: _surprise(np.array([_strength(answer) for answer in given]), benign)
        for name, given in answers.items()
    }
    flagged = {
        name: np.array([isinstance(answer, Reason) and answer.flagged for answer in given])
        for name, given in answers.items()
    }
    combined, any_flagged = np.maximum.reduce(list(surprise.values())), np.logical_or.reduce(list(flagged.values()))
    report: dict[str, Any] = {}
    for family in sorted(set(families[~benign].tolist())):
        chosen = (families == family) & ~benign
        report[family] = {
            "n": int(chosen.sum()),
            "flagged": int(any_flagged[chosen].sum()),
            "recall": _recall(combined, benign, chosen),
            "by_detector": {
                name: {"flagged": int(flagged[name][chosen].sum()), "recall": _recall(score, benign, chosen)}
                for name, score in surprise.items()
            },
        }
    return {
        "n_benign": int(benign.sum()),
        "benign_flagged": int(any_flagged[benign].sum()),
        "us_per_prompt": seconds / len(cases) * 1e6,
        "families": report,
    }
