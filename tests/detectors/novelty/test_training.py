"""Training from folder to artefact, small; and fitting to a fleet's own prompts."""

import gzip
import json
import random
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
from click.testing import CliRunner

from detectors.novelty import artefact
from detectors.novelty.scale import fit_scale
from detectors.novelty.tokens import Tokeniser
from detectors.novelty.training import fit
from detectors.novelty.training.samples import Attack, make
from detectors.novelty.training.tagging import ends
from detectors.novelty.training.texts import Document, read_folder, without
from loadtests.attacks.text import families
from streams.cli import main

TEXTS = [text[at : at + 1500] for text in topics.values() for at in range(0, len(text), 1500)]
DOCUMENTS = [Document("docs", f"docs/{i % 40}", text) for i, text in enumerate(TEXTS) if len(text) > 100]


def test_a_folder_is_read_by_kind_of_file(tmp_path: Path) -> None:
    long = "An ordinary sentence of a certain length."
    root = tmp_path / "kind"
    (root / "a").mkdir(parents=True)
    (root / "man" / "man1").mkdir(parents=True)
    (root / "a" / "task.json").write_text(json.dumps({"examples": [{"input": long + " task", "target": "yes"}]}))
    (root / "a" / "page.html").write_text(f"<p>{long} html</p><script>var x</script>")
    (root / "a" / "notes.md").write_text(long + " md")
    rows = [{"input": [{"role": "system", "content": "ab"}, {"role": "user", "content": long + " last"}]},
            {"question": long + " row"}, {"input": 3}, [4]]  # fmt: skip
    (root / "a" / "rows.jsonl").write_text("\n".join([*map(json.dumps, rows), "{"]))
    (root / "a" / "picture.png").write_bytes(b"\x89PNG" * 40)
    (root / "man" / "man1" / "x.1.gz").write_bytes(gzip.compress(f".TH X 1\n{long} man".encode()))
    with sqlite3.connect(root / "quotes.sqlite3") as connection:
        connection.execute("create table quote (id integer, text text)")
        connection.execute("insert into quote values (1, ?)", (long + " quote",))
    found = list(read_folder(root))
    assert {text.text.split("length. ")[1].split("\n")[0] for text in found} == {
        "task",
        "last",
        "row",
        "html",
        "md",
        "man",
        "quote",
    }
    assert {text.kind for text in found} == {"kind"}
    assert {text.group for text in found} == {"kind/a", "kind/man", "kind/quotes.sqlite3"}
    assert found == list(read_folder(root))


def test_no_group_is_used_twice() -> None:
    parts = fit.split(DOCUMENTS)
    groups = [{document.group for document in part} for part in parts]
    assert all(groups)
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert sum(map(len, parts)) == len(DOCUMENTS)


def test_a_fold_is_looked_at_by_counts_that_lack_it() -> None:
    own = [Document("own", f"own/{i}", "zyzzyva " * 200) for i in range(20)]
    language = fit.learn_language([*DOCUMENTS, *own], 0, (200_000, 200_000, 100_000))
    assert not any(b"zyzz" in token for token in language.whole.tokens)  # one's own prompts are samples only
    sums = [base.grams.counts.sum() for base in language.without]
    assert sum(sums) == pytest.approx((fit.FOLDS - 1) * language.whole.grams.counts.sum())
    for fold, base in zip(fit.by_fold(DOCUMENTS), language.without, strict=True):
        assert fold
        lacking = language.whole.grams.counts.sum() - base.grams.counts.sum()
        flat, _ = Tokeniser(base.tokens).encode([document.text for document in fold])
        assert lacking == len(flat)


def test_the_shipped_artefact_is_of_the_version_that_training_makes() -> None:
    assert artefact.load()[2]["version"] == fit.VERSION


def test_attacks_are_cut_from_what_prompts_are_drawn_from() -> None:
    """Kinds of text count by their weight as carriers, not by how many texts they have or which come first."""
    many = [Document("library", f"library/{i}", f"import os {i} and so on, a line of code") for i in range(3_000)]
    few = [Document("bigbench", f"bigbench/{i}", f"What is the answer to question {i}?") for i in range(60)]
    seen: list[Sequence[str]] = []

    def no_families(texts: Sequence[str]) -> dict[str, Attack]:
        seen.append(texts)
        return {}

    fit.split_attacks(no_families, fit.Split([*many, *few], [], []), 0, texts=400)
    asked = [text.startswith("What") for texts in seen for text in texts]
    assert np.mean(asked) > 0.7


def test_copies_of_what_is_kept_back_are_not_learned_from() -> None:
    words = [f"word{i}" for i in range(40)]
    copy, alike = Document("a", "a/1", "Say: " + " ".join(words[10:30])), Document("a", "a/2", " ".join(words[:11]))
    kept_back = [" ".join(words).upper() + "?"]
    assert without([copy, alike], kept_back) == [alike]
    assert without([copy, alike], []) == [copy, alike]


def test_samples_mark_the_attack() -> None:
    made = families(TEXTS)
    samples = make(300, DOCUMENTS, made, seed=3)
    assert samples == make(300, DOCUMENTS, made, seed=3)
    attacks = [sample for sample in samples if sample.end]
    assert 100 < len(attacks) < 200
    for sample in attacks:
        assert sample.family in made
        assert (sample.begin == 0) != (sample.end == len(sample.text))
        assert sample.end - sample.begin >= 6
    assert {sample.family for sample in samples if not sample.end} == {"benign"}


def test_a_small_model_learns(tmp_path: Path) -> None:
    parts = fit.split(DOCUMENTS)
    language = fit.learn_language([*parts.tagged, *parts.weighed], 0, (200_000, 200_000, 100_000))
    attacks = fit.split_attacks(families, parts, 0, texts=500)
    model = fit.fit_model(language, parts, attacks, fit.Sizes(tagged=2_000, weighed=1_500, epochs=1.0), 0)
    held = make(600, parts.held, attacks.held, 5)
    recall = fit.report(model, held)
    assert recall["uniform_tokens"]["0.01"] > 0.15  # chance is 0.01
    path = tmp_path / "small.npz"
    scale = fit_scale(fit.judge(model, [sample.text for sample in held if not sample.end]))
    artefact.save(path, model.parts, scale, {"version": "t"})
    again, scale_again, about = artefact.load(path)
    texts = [sample.text for sample in held]
    np.testing.assert_array_equal(again.log_odds(*ends(texts)), model.log_odds(*ends(texts)))
    np.testing.assert_array_equal(scale_again.log_odds, scale.log_odds)
    assert about == {"version": "t"}


def test_fit_sets_the_scale_to_a_fleet(tmp_path: Path) -> None:
    rng = random.Random(1)
    sample = tmp_path / "benign.jsonl"
    texts = [" ".join(rng.choices(TEXTS[i % len(TEXTS)].split(), k=12)) for i in range(1_000)]
    sample.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    out = tmp_path / "own.npz"
    result = CliRunner().invoke(main, ["novelty", "fit", str(sample), "--out", str(out)])
    assert result.exit_code == 0, result.output
    model, scale, about = artefact.load(out)
    scores = scale.score(model.log_odds(*ends(texts)))
    assert (scores >= 0.95).mean() == pytest.approx(0.05, abs=0.01)
    assert about["calibrated_on"] == 1_000
    shipped_model, shipped_scale, _ = artefact.load()
    assert (shipped_scale.score(shipped_model.log_odds(*ends(texts))) >= 0.95).mean() > 0.1


@pytest.mark.parametrize("line", ["{", '{"prompt": "x"}', "3", '{"text": 3}'])
def test_an_odd_row_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    sample = tmp_path / "benign.jsonl"
    sample.write_text('{"text": "one"}\n' + line)
    result = CliRunner().invoke(main, ["novelty", "fit", str(sample), "--out", str(tmp_path / "x.npz")])
    assert result.exit_code == 1
    assert "line 2" in result.output


def test_too_small_a_sample_is_refused(tmp_path: Path) -> None:
    sample = tmp_path / "benign.jsonl"
    sample.write_text('{"text": "one"}\n')
    result = CliRunner().invoke(main, ["novelty", "fit", str(sample), "--out", str(tmp_path / "x.npz")])
    assert result.exit_code == 1
    assert "at least 200" in result.output
