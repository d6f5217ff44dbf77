"""Each detector has a page that says what it sees, what it cannot, how it was measured and how to tune it."""

import re

import pytest

from tests.detectors.checks import DOCS, SMALL

PROMPT = ("novelty", "triggers")
PAGES = sorted({*SMALL, *PROMPT, "guard"})
SECTIONS = ("Measured", "What it cannot see")


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("section", SECTIONS)
def test_a_page_is_whole(name: str, section: str) -> None:
    page = (DOCS / f"{name}.md").read_text()
    assert page.startswith(f"# {name}\n")
    assert f"\n## {section}\n" in page
    assert re.search(r"\n## (Tuning|How to tune)\n", page)


@pytest.mark.parametrize("name", PAGES)
def test_measured_is_what_a_command_gave(name: str) -> None:
    page = (DOCS / f"{name}.md").read_text()
    measured = page.partition("\n## Measured\n")[2].partition("\n## ")[0]
    assert not measured or re.search(r"python -m loadtests\.|make \w+|Nothing to measure", measured)


def test_every_page_is_of_a_detector_or_the_guard() -> None:
    assert {path.stem for path in DOCS.glob("*.md")} == set(PAGES)


def test_readme_names_every_page() -> None:
    readme = (DOCS.parents[1] / "README.md").read_text()
    for name in PAGES:
        assert f"docs/detectors/{name}.md" in readme, name
