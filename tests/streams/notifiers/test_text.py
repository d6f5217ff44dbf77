import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.notifiers.text import annotations, inert, labels
from tests.streams.notifiers.alerts import PAYLOADS, alert, hostile


@given(st.text())
def test_inert_text_holds_nothing_that_acts(text: str) -> None:
    shown = inert(text)
    assert shown.isprintable()
    assert not set(shown) & set("<>&@*`~[](){}|'\"=$;!?+%^")
    assert "//" not in shown
    assert not re.search(r"\\(?!u[0-9a-f]{4}|U[0-9a-f]{8})", shown)  # a backslash is only ever our own


@given(st.text(), st.text())
def test_different_texts_stay_different(one: str, other: str) -> None:
    assert (inert(one) == inert(other)) == (one == other)


@pytest.mark.parametrize("name", ["acme", "openai/gpt-4.1:free", "team-7_eu", "Zürich #3", "模型", "a1b2c3"])
def test_ordinary_names_are_shown_as_they_are(name: str) -> None:
    assert inert(name) == name


def test_labels_are_lawful_for_prometheus_and_say_the_identity_and_the_severity() -> None:
    shown = labels(alert(labels={"alertname": "x", "gen_ai.model-name": "m", "0day": "z", "empty": ""}))
    assert shown == {"alertname": "x", "gen_ai_model_name": "m", "_0day": "z", "severity": "critical"}
    assert all(re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name) for name in shown)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_field_of_an_event_reaches_labels_or_annotations_as_it_was(payload: str) -> None:
    for values in (labels(hostile(payload)), annotations(hostile(payload))):
        assert values
        for value in values.values():
            assert payload not in value
            assert value.isprintable()


def test_annotations_tell_the_numbers() -> None:
    told = annotations(alert())
    assert told["description"] == (
        "3 findings from 2 principals of 1 tenant, 2026-03-01T12:00:00.000Z to 2026-03-01T12:01:00.000Z,"
        " estimated extra cost 1.25 USD"
    )
    assert told["owasp"] == "LLM10:2025"
    assert "runbook_url" not in told
