import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from detectors.folding import fold, visible

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))


@given(ANY_TEXT)
@example("x0y1 ab12c a@b c@")
@example("İẞϔK\u0345")
@example("\ud800lone surrogate")
def test_folding_is_idempotent_and_never_raises(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(ANY_TEXT)
def test_folded_text_holds_no_private_character_no_marks_and_encodes(text: str) -> None:
    folded = fold(text)
    folded.encode("utf-8")
    assert "\ue000" not in folded
    assert not any(unicodedata.combining(c) for c in folded)


@pytest.mark.parametrize(
    "disguise",
    [
        "IGNORE the Price",
        "ignоrе thе рriсe",  # Cyrillic
        "ig\u200bno\u200dre the\ufeff pr\u00adice",
        "ｉｇｎｏｒｅ ｔｈｅ ｐｒｉｃｅ",
        "𝐢𝐠𝐧𝐨𝐫𝐞 𝓽𝓱𝓮 𝕡𝕣𝕚𝕔𝕖",
        "i\u0301gno\u0308re the\u0323 price",
        "1gn0re th3 pr1ce",
        "ign\U000e0041ore the price",
    ],
)
def test_disguises_fold_to_what_they_read_as(disguise: str) -> None:
    assert fold(disguise) == "ignore the price"


@pytest.mark.parametrize("text", ["4 + 5 = 9", "2024-10-03", "$100", "v100", "0x1f 1000"])
def test_numbers_stay_numbers(text: str) -> None:
    assert any(c.isdigit() for c in fold(text))


@given(ANY_TEXT)
def test_visible_text_is_no_longer_and_idempotent(text: str) -> None:
    assert len(visible(text)) <= len(text)
    assert visible(visible(text)) == visible(text)


@given(st.lists(st.text("ab0127@$", min_size=1, max_size=6), min_size=1, max_size=6))
def test_a_words_fold_does_not_depend_on_the_words_beside_it(words: list[str]) -> None:
    assert fold(" ".join(words)) == " ".join(fold(word) for word in words)
