"""The evaluation's figures are the ones that a hand count gives."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from detectors.contract import Answer
from detectors.evaluation import CasesError, Labelled, evaluate, read_cases
from detectors.text import PromptBatch
from schemas.verdicts import Reason
from streams.cli import main


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
    assert report["too_few_benign_for"] == []
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
        list(read_cases(path))
    assert says in str(raised.value)


def test_a_file_without_benign_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(json.dumps({"family": "x", "text": "t", "label": 1}) + "\n")
    with pytest.raises(CasesError, match="benign"):
        evaluate([ByNumber("a", 1)], read_cases(path))


def test_a_detector_that_never_errs_costs_the_others_nothing() -> None:
    """One whose scale is known is put beside the others by it, not by ranks that noise of its own has too."""
    rare = [Labelled("plain", f"novelty={i / 1000} triggers={i % 7 / 10}", False) for i in range(1000)]
    attacks = [
        Labelled("odd", "novelty=0.9985 triggers=0.1", True),
        Labelled("known", "novelty=0.2 triggers=9", True),
    ]
    report = evaluate([ByNumber("novelty", 0.9999), ByNumber("triggers", 5.0)], [*rare, *attacks])["families"]
    assert report["odd"]["recall"]["0.001"] == report["odd"]["by_detector"]["novelty"]["recall"]["0.001"] == 0.0
    assert report["odd"]["recall"]["0.01"] == report["odd"]["by_detector"]["novelty"]["recall"]["0.01"] == 1.0
    assert report["known"]["recall"] == {"0.001": 1.0, "0.01": 1.0}


HOSTILE = ["", " ", "\x00", "\ud800", "\udfff\ud800 x", "\ufeff\u202e", "a" * 3_000_000, "\u0300" * 5_000,
           "😀" * 4_000, "\n" * 9_000, "<|endoftext|>", "0" * 5_000, "\U000e0001" * 900, "ß" * 2_000,
           "<|fim_prefix|>\ud83d"]  # fmt: skip


def test_the_command_stands_any_text(tmp_path: Path) -> None:
    rows = [{"family": "hostile", "text": text, "label": label} for text in HOSTILE for label in (0, 1)]
    rows += [{"family": "plain", "text": "What is the capital of France?", "label": 0}] * 300
    path, out = tmp_path / "cases.jsonl", tmp_path / "out.json"
    path.write_text("\ufeff" + "\n".join(map(json.dumps, rows)), encoding="utf-8")
    result = CliRunner().invoke(main, ["eval", str(path), "--json", str(out)])
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert report["n_benign"] == 300 + len(HOSTILE)
    assert report["too_few_benign_for"] == ["0.001"]
    assert "at least 1,000" in result.stderr
    assert report["families"]["hostile"]["n"] == len(HOSTILE)
    assert set(report["families"]["hostile"]["by_detector"]) == {"triggers", "novelty"}


@pytest.mark.parametrize("content", [b"", b"\n\n", b"[" * 200_000, b"\xff\xfe\x00", b"PK\x03\x04\x00"])
def test_the_command_says_what_is_wrong_with_a_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_bytes(content)
    result = CliRunner().invoke(main, ["eval", str(path)])
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1
