"""From tokens back to characters: what lies between a token's places folds to the token."""

from hypothesis import given
from hypothesis import strategies as st

from detectors.folding import fold
from detectors.spans import token_places
from detectors.text import tokenise
from detectors.vocabulary import vocabulary

# Leetspeak is read in words, not by characters: no digits here, nor what decomposes into them.
_CHARS = st.one_of(
    st.characters(codec="utf-8", exclude_categories=["N"], exclude_characters="@$"),
    st.sampled_from("abﬁβА\u00a0\u2028\u200b\t漢😀é"),
)


@given(st.text(_CHARS, max_size=80))
def test_each_token_lies_where_its_text_is(text: str) -> None:
    places = token_places(text)
    if not places.tokens.size and fold(text).strip():
        return  # folding went by more than single characters
    assert places.tokens.tolist() == tokenise([text])[0].tolist()
    known = vocabulary().pairs.tokens
    for token, begin, end in zip(*(column.tolist() for column in places), strict=True):
        assert known[token] in "".join(map(fold, text[begin:end])).encode()
    assert all(places.begin[1:] >= places.end[:-1] - 1)  # one character may be two tokens


def test_white_space_and_what_is_invisible_belong_to_no_token() -> None:
    text = "  The\u00a0\u200b \u2028 end\n"
    places = token_places(text)
    assert [text[b:e] for b, e in zip(places.begin, places.end, strict=True)] == ["The", "end"]


def test_a_run_of_one_token_has_one_place() -> None:
    places = token_places("no !!!! more")
    assert places.tokens.tolist() == tokenise(["no ! more"])[0].tolist()
    assert (places.begin[1], places.end[1]) == (3, 7)
