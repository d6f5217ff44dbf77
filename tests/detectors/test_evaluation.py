"""The evaluation's figures are the ones that a hand count gives."""

import json
from pathlib import Path

import pytest

from detectors.contract import Answer
from detectors.evaluation import CasesError, Labelled, evaluate, read_cases
from detectors.text import PromptBatch
from schemas.verdicts import Reason


class ByNumber:
    """Takes its answer from the prompt: `name=score` among its words."""

    version = "1"
    kinds = ("novel_text",)

    def __init__(self, name: str, flag: float) -> None:
        self.name, self.flag = name, flag

    def score_batch(self, prompts: PromptBatch) -> list[Answer]:
        return [self._answer(head) for head in prompts.heads]

    def _answer(self, text: str) -> Answer:
        given = dict(part.split("=") for part in text.split() if "=" in part)
        if self.name not in given:
            return None
        score = float(given[self.name])
        if score < self.flag:
            return score
        return Reason(detector=self.name, detector_version="1", score=score, threshold=self.flag, flagged=True)


BENIGN = [Labelled("plain", f"a={i} b={1000 - i}", False) for i in range(1000)]


def test_figures_by_family_and_detector() -> None:
    attacks = [
        Labelled("by_a", "a=2000 b=1", True),
        Labelled("by_a", "a=995.5", True),
        Labelled("by_a", "a=3", True),
        Labelled("by_b", "a=2 b=999.5", True),
        Labelled("by_b", "nothing", True),
    ]
    report = evaluate([ByNumber("a", 990), ByNumber("b", 5000)], [*BENIGN, *attacks])
    assert report["n_benign"] == 1000
    assert report["benign_flagged"] == 10
    assert report["us_per_prompt"] > 0
    by_a, by_b = report["families"]["by_a"], report["families"]["by_b"]
    assert (by_a["n"], by_a["flagged"]) == (3, 2)
    assert by_a["by_detector"]["a"] == {"flagged": 2, "recall": {"0.001": 1 / 3, "0.01": 2 / 3}}
    assert by_a["by_detector"]["b"] == {"flagged": 0, "recall": {"0.001": 0.0, "0.01": 0.0}}
    assert by_b["by_detector"]["b"]["recall"] == {"0.001": 0.0, "0.01": 0.5}
    # Together each detector has spent its share of the false positives.
    assert by_a["recall"] == {"0.001": 1 / 3, "0.01": 2 / 3}
    assert by_b["recall"] == {"0.001": 0.0, "0.01": 0.5}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"family": "x", "text": "t"}', "label"),
        ('{"family": "x", "text": "t", "label": 2}', "label"),
        ('{"family": "x", "text": "t", "label": true}', "label"),
        ('{"family": "x", "text": 5, "label": 1}', "text"),
        ('{"text": "t", "label": 1}', "family"),
        ("[1]", "object"),
        ("{", "JSON"),
    ],
)
def test_an_odd_row_is_named_by_its_line(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text('{"family": "x", "text": "t", "label": 0}\n\n' + line + "\n")
    with pytest.raises(CasesError, match="line 3") as raised:
        read_cases(path)
    assert says in str(raised.value)


def test_a_file_without_benign_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(json.dumps({"family": "x", "text": "t", "label": 1}) + "\n")
    with pytest.raises(CasesError, match="benign"):
        read_cases(path)
