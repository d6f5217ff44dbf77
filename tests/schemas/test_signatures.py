"""Signatures and the chain: any edit, loss or addition is seen, and what is only written otherwise is not."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.audits import AuditTicket
from schemas.signatures import chain_problems, derived, link_problem, linked, signed, signer
from schemas.thresholds import ThresholdScope, ThresholdUpdate

KEY = derived("a key that only tests know", "updates")
KEYS = {"k1": KEY}
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def ticket(**fields: Any) -> AuditTicket:
    defaults: dict[str, Any] = {
        "ticket_id": "t", "request_id": "r", "tenant_id": "a", "principal_hash": "p", "detector": "novelty",
        "score": 0.5, "threshold": 0.9, "threshold_version": 3, "issued_at": NOON,
        "expires_at": NOON + timedelta(days=7),
    }  # fmt: skip
    return AuditTicket(**{**defaults, **fields})


def chain(length: int) -> list[ThresholdUpdate]:
    links: list[ThresholdUpdate] = []
    for version in range(1, length + 1):
        update = ThresholdUpdate(
            update_id=f"u{version}", scope=ThresholdScope(detector="novelty"), parameter="novelty.flag",
            old_value=None, new_value=0.99 - version / 1000, direction="tighten", version=version, mode="active",
            cause="auto", time=NOON + timedelta(minutes=version), reason="why",
        )  # fmt: skip
        links.append(linked(update, links[-1].hash if links else "", KEY, "k1"))
    return links


def test_a_signature_names_its_key_and_bears_another_spelling_of_the_same_content() -> None:
    made = signed(ticket(), KEY, "k1")
    assert signer(made, KEYS) == "k1"
    elsewhere = msgspec.structs.replace(made, issued_at=made.issued_at.astimezone(timezone(timedelta(hours=5))))
    assert signer(elsewhere, KEYS) == "k1"
    document = msgspec.json.decode(msgspec.json.encode(made))
    backwards = msgspec.json.encode(dict(reversed(document.items())) | {"of_a_newer_release": 1})
    assert signer(msgspec.json.decode(backwards, type=AuditTicket), KEYS) == "k1"


@pytest.mark.parametrize(
    "signature", ["", "x", "hmac-sha256:k1:", "hmac-sha256:k1:é", "hmac-sha256:k2:00", "md5:k1:0"]
)
def test_what_is_no_signature_of_ours_is_none(signature: str) -> None:
    assert signer(ticket(signature=signature), KEYS) is None


def test_a_key_serves_one_purpose() -> None:
    made = signed(ticket(), derived("one key", "tickets"), "k1")
    assert signer(made, {"k1": derived("one key", "updates")}) is None


@given(st.data())
def test_a_ticket_with_any_field_altered_is_refused(data: st.DataObject) -> None:
    made = signed(ticket(), KEY, "k1")
    field = data.draw(st.sampled_from([name for name in made.__struct_fields__ if name != "signature"]))
    value = getattr(made, field)
    if isinstance(value, datetime):
        other: Any = value + timedelta(seconds=data.draw(st.integers(1, 10**6)))
    elif isinstance(value, str):
        other = data.draw(st.text(max_size=5).filter(lambda text: text != value))
    else:
        other = data.draw(st.floats(0.001, 1e6).filter(lambda number: number != value))
    assert signer(msgspec.structs.replace(made, **{field: other}), KEYS) is None


def test_a_chain_as_it_was_written_is_whole() -> None:
    assert chain_problems(chain(5), KEYS) == []
    assert chain_problems([], KEYS) == []
    stored = [msgspec.json.decode(msgspec.json.encode(link), type=ThresholdUpdate) for link in chain(5)]
    assert chain_problems(stored, KEYS) == []


@given(st.data())
def test_a_chain_breaks_on_any_edit(data: st.DataObject) -> None:
    links = chain(6)
    at = data.draw(st.integers(0, 5))
    edits = ["edit", "forge", "drop", "double", "swap"]
    edit = data.draw(st.sampled_from(edits if at < 5 else edits[:2] + edits[3:4]))  # a cut end is a whole chain
    if edit in ("edit", "forge"):
        changes: dict[str, Any] = data.draw(
            st.sampled_from([
                {"new_value": 0.5}, {"old_value": 1.0}, {"actor": "mallory"}, {"mode": "proposed"}, {"version": 9},
                {"scope": ThresholdScope()}, {"reason": "other"}, {"time": NOON}, {"prev_hash": "sha256:0"},
                {"e_value": 99.0}, {"expires_at": NOON}, {"approver": "nobody"},
            ])
        )  # fmt: skip
        edited = msgspec.structs.replace(links[at], **changes)
        if edit == "forge":  # with hashes that fit, by one who has no key
            edited = linked(edited, edited.prev_hash, b"another key", "k1")
        links[at] = edited
        assert link_problem(edited, KEYS)
    elif edit == "drop":
        del links[at]
    elif edit == "double":
        links.insert(at, links[at])
    else:
        links[at], links[at + 1] = links[at + 1], links[at]
    assert chain_problems(links, KEYS)


def test_without_keys_an_edit_is_seen_and_a_forger_is_not() -> None:
    links = chain(3)
    assert chain_problems(links, None) == []
    assert chain_problems([msgspec.structs.replace(links[0], new_value=1.0), *links[1:]], None)
    forged = linked(msgspec.structs.replace(links[2], new_value=1.0), links[1].hash, b"another key", "k1")
    assert chain_problems([*links[:2], forged], None) == []
    assert chain_problems([*links[:2], forged], KEYS) == ["version 3: not signed by the feedback service"]
