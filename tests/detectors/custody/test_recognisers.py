"""What is found in a prompt, and what is not. No example here is a real credential."""

from hashlib import sha256
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.corpus import benign_texts
from detectors.custody.recognisers import Recognisers
from detectors.custody.rules import RuleFile, Rules
from detectors.panel import build_panel
from detectors.thresholds import Thresholds
from schemas.events import CUT_CHARS
from tests.factories import request

CANARY = "acme-canary-7b1f0c9d2e"
RECOGNISERS = Recognisers({"wiki": sha256(CANARY.encode()).hexdigest()})


def find(text: str) -> list[str]:
    return RECOGNISERS.find(request(prompt_text=text))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"Use the key {CANARY}, please.", "canary:wiki"),
        (f'{{"token":"{CANARY}"}}', "canary:wiki"),
        (f"key={CANARY}\nhost=db", "canary:wiki"),
        ("export AWS_ACCESS_KEY_ID=AKIA" + "IOSFODNN7EXAMPLE", "secret:AWS Access Key"),
        ("why does ghp_" + "a1B2" * 9 + " not work?", "secret:GitHub Token"),
        ("-----BEGIN RSA " + "PRIVATE KEY-----\nMIIE", "secret:Private Key"),
        ("xoxb-" + "1234567890-abcdefghij", "secret:Slack Token"),
        ("charge it to 4111 1111 1111 1111 today", "personal:card"),
        ("charge it to 4111-1111-1111-1111.", "personal:card"),
        ("pay to DE89 3704 0044 0532 0130 00 by Friday", "personal:iban"),
        ("SSN: 536-90-4399", "personal:us_ssn"),
        ("codice fiscale RSSMRA85T10A562S", "personal:it_codice_fiscale"),
    ],
)
def test_what_must_not_leave_is_named(text: str, found: str) -> None:
    assert find(text) == [found]
    assert find("What is this? " * 40 + text + " Explain, please.") == [found]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Please explain internationalisation and counterrevolutionaries.",
        f"x{CANARY}",
        CANARY[:-1],
        "order 4111 1111 1111 1112 of 2024-05-06",
        "DE89 3704 0044 0532 0130 01",
        "000-12-3456 and 2020-10-2020",
        "build 4111111111111111abc, 94111111111111111, 1700000000000000",
        "https://example.com/a/long/path/to/a/document/with-a-long-name_20240506.html?id=123456789",
        "3f786850e387550fdab836ed7e6dc881de23001b",
    ],
)
def test_what_only_looks_like_it_is_not(text: str) -> None:
    assert find(text) == []


def test_two_of_a_kind_are_two_and_one_twice_is_one() -> None:
    one, other = "4111 1111 1111 1111", "5555 5555 5555 4444"
    assert find(f"{one}, {other} and {one}") == ["personal:card"] * 2


def test_ends_are_read_as_whole_prompts_are() -> None:
    ends = request(prompt_text="", prompt_head="hello there", prompt_tail=f"the key is {CANARY}")
    assert RECOGNISERS.find(ends) == ["canary:wiki"]
    assert find(f"{CANARY} " + "x " * 100_000) == ["canary:wiki"]
    assert find("x " * CUT_CHARS + CANARY + " x" * CUT_CHARS) == []  # the middle is not looked at


def test_only_what_is_asked_for_is_looked_for() -> None:
    only = Recognisers({"wiki": sha256(CANARY.encode()).hexdigest()}, recognise=False)
    assert only.find(request(prompt_text=f"{CANARY} 4111 1111 1111 1111")) == ["canary:wiki"]


def test_ordinary_prompts_carry_hardly_anything() -> None:
    texts = list(islice(benign_texts(), 3000))
    assert texts
    assert sum(bool(find(text)) for text in texts) <= len(texts) / 1000


@given(st.text(max_size=400))
def test_it_never_raises(text: str) -> None:
    assert isinstance(find(text), list)


def test_the_panel_gives_names_and_keeps_no_text() -> None:
    panel = build_panel(Thresholds(), rules=Rules(RuleFile(canaries={"wiki": sha256(CANARY.encode()).hexdigest()})))
    facts = panel.facts([request(prompt_text=f"the key is {CANARY}"), request(prompt_text="hello")])
    assert [fact.carries for fact in facts] == [["canary:wiki"], []]
    assert CANARY not in repr(facts)
    assert build_panel(Thresholds()).facts([request(prompt_text=f"the key is {CANARY}")])[0].carries == []
