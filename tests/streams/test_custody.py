"""Custody's rule file."""

from pathlib import Path

import pytest

from streams.custody import rules
from streams.settings import Detect, SettingsError

PAGE = Path(__file__).parents[2] / "docs" / "detectors" / "custody.md"


def load(path: Path | str) -> None:
    rules(Detect(custody_rules=str(path)))


def test_no_file_is_no_rules() -> None:
    found = rules(Detect())
    assert not found.recognises
    assert not found.judges("acme")


def test_the_example_of_the_page_is_a_rule_file(tmp_path: Path) -> None:
    example = PAGE.read_text().partition("```yaml\n")[2].partition("```")[0]
    path = tmp_path / "rules.yml"
    path.write_text(example)
    found = rules(Detect(custody_rules=str(path)))
    assert found.recognises
    assert found.judges("acme")
    assert found.file.internal_providers
    assert found.file.canaries


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tenants: [1]", "tenants"),
        ("tenant: {}", "tenant"),
        ("canaries: {a: plain-text-canary-000}", "canaries"),
        ("{", "rules.yml"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "rules.yml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=said):
        load(path)
    with pytest.raises(SettingsError, match="missing"):
        load(tmp_path / "missing.yml")
