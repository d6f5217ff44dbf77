"""What the prompt detectors find in labelled prompts, by family of attack, and what they flag of benign ones.

Detectors score on scales of their own. They are put together in *decades*: 3 is what one benign prompt in 1,000
reaches. A prompt's combined score is its highest. Where a detector's scale says how rare a score is, that is taken,
so that a detector which almost never errs costs the others nothing; any other detector is ranked among the file's
own benign prompts.
"""

import json
import math
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
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


def read_cases(path: Path) -> Iterator[Labelled]:
    """Rows `{"family": str, "text": str, "label": 0 | 1}` of a JSONL file, one at a time; blank lines are skipped.

    Raises:
        CasesError: a line that is not such a row.
        OSError: the file cannot be read.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield _case(line)
                except ValueError as error:
                    raise CasesError(f"{path.name}, line {number}: {error}") from error


def _case(line: bytes) -> Labelled:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
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


def _novelty(answer: Reason | float) -> float:
    score = answer.score if isinstance(answer, Reason) else answer
    return -math.log10(1.0 - score)


def _triggers(answer: Reason | float) -> float:
    """0.001 % at the threshold (docs/evaluation.md); of what is near it, meaning is far commoner than tokens."""
    if not isinstance(answer, Reason):
        return 0.0
    rare = answer.flagged or answer.stage in ("lexical", "fragment")
    return (5.0 if rare else 2.0) * answer.score / answer.threshold


_DECADES: Mapping[str, Callable[[Reason | float], float]] = MappingProxyType(
    {"novelty": _novelty, "triggers": _triggers}
)


def _strength(answer: Answer) -> float:
    """Order within a detector: no answer, plain scores (0..1), reasons by score over threshold (from 1)."""
    if answer is None:
        return -1.0
    if isinstance(answer, Reason):
        return 1.0 + answer.score / answer.threshold
    return answer / (1.0 + answer)


class _Column:
    """One detector's answers, as numbers."""

    def __init__(self, name: str) -> None:
        self._decades = _DECADES.get(name)
        self._strength, self._rarity, self._flagged = array("d"), array("d"), array("b")

    def add(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            self._strength.append(_strength(answer))
            self._flagged.append(isinstance(answer, Reason) and answer.flagged)
            if self._decades:
                self._rarity.append(0.0 if answer is None else self._decades(answer))

    @property
    def strength(self) -> NDArray[np.float64]:
        return np.array(self._strength)

    @property
    def flagged(self) -> NDArray[np.bool_]:
        return np.array(self._flagged, np.bool_)

    def decades(self, benign: NDArray[np.bool_]) -> NDArray[np.float64]:
        """How rare each answer is among benign prompts."""
        if self._decades:
            return np.array(self._rarity)
        strength = self.strength
        among = np.sort(strength[benign])
        at_least = len(among) - np.searchsorted(among, strength, side="left")
        return np.asarray(-np.log10(np.maximum(at_least, 0.5) / len(among)))


def judge(detectors: Sequence[PromptDetector], texts: Sequence[str]) -> tuple[dict[str, list[Answer]], float]:
    """Answers by detector, and CPU seconds of reading and judging, in one batch."""
    begin = time.process_time()
    batch = read_texts(texts)
    answers = {detector.name: detector.score_batch(batch) for detector in detectors}
    return answers, time.process_time() - begin


def _recall(score: NDArray[np.float64], benign: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> dict[str, float]:
    """Share of the chosen prompts above the benign ones' quantiles, by rate of false positives."""
    return {
        str(rate): float((score[chosen] > np.quantile(score[benign], 1 - rate, method="higher")).mean())
        for rate in RATES
    }


class Judged(NamedTuple):
    """Cases in their order, without their texts."""

    families: list[str]  # (n,)
    attack: NDArray[np.bool_]
    columns: dict[str, _Column]  # by detector
    seconds: float  # CPU

    def combined(self) -> NDArray[np.float64]:
        """The highest of the detectors' decades: float64[n]."""
        benign = ~self.attack
        return np.asarray(np.maximum.reduce([column.decades(benign) for column in self.columns.values()]))

    def flagged(self) -> NDArray[np.bool_]:
        """Whether any detector flags, at the thresholds in force: bool[n]."""
        return np.asarray(np.logical_or.reduce([column.flagged for column in self.columns.values()]))


def judge_all(detectors: Sequence[PromptDetector], cases: Iterable[Labelled]) -> Judged:
    """Judge cases in batches of `BATCH`.

    Raises:
        CasesError: there are no benign cases, which recall is measured against.
    """
    columns = {detector.name: _Column(detector.name) for detector in detectors}
    attacks, families, names = array("b"), list[str](), dict[str, str]()
    seconds, rows = 0.0, iter(cases)
    judge(detectors, ["compiles what is compiled at first use"])
    while batch := list(islice(rows, BATCH)):
        answers, took = judge(detectors, [case.text for case in batch])
        seconds += took
        attacks.extend(case.attack for case in batch)
        families.extend(names.setdefault(case.family, case.family) for case in batch)  # one string a family
        for name, given in answers.items():
            columns[name].add(given)
    if all(attacks):
        raise CasesError("no benign rows (label 0), which recall is measured against")
    return Judged(families, np.array(attacks, np.bool_), columns, seconds)


def evaluate(detectors: Sequence[PromptDetector], cases: Iterable[Labelled]) -> dict[str, Any]:
    """Judge all cases.

    Returns:
        `n_benign`, `benign_flagged` (at the thresholds in force), `us_per_prompt` (CPU), `too_few_benign_for`
        (rates that they say nothing of: recall is against the highest of them), and for each family of
        attacks `n`, `flagged`, `recall` at 0.1 % and 1 % false positives of the benign cases, and the last two by
        detector.

    Raises:
        CasesError: there are no benign cases.
    """
    judged = judge_all(detectors, cases)
    family, benign = np.array(judged.families, np.object_), ~judged.attack
    combined, flagged = judged.combined(), judged.flagged()
    report: dict[str, Any] = {}
    for name in sorted(set(family[judged.attack])):
        chosen = (family == name) & judged.attack
        report[name] = {
            "n": int(chosen.sum()),
            "flagged": int(flagged[chosen].sum()),
            "recall": _recall(combined, benign, chosen),
            "by_detector": {
                detector: {
                    "flagged": int(column.flagged[chosen].sum()),
                    "recall": _recall(column.strength, benign, chosen),
                }
                for detector, column in judged.columns.items()
            },
        }
    return {
        "n_benign": int(benign.sum()),
        "benign_flagged": int(flagged[benign].sum()),
        "us_per_prompt": judged.seconds / len(benign) * 1e6,
        "too_few_benign_for": [str(rate) for rate in RATES if benign.sum() < 1 / rate],
        "families": report,
    }
