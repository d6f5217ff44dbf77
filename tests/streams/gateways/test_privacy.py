"""What leaves a gateway: hashes that need the key, and of the prompt no more than its operator lets go."""

import hashlib
import hmac

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import text
from streams.gateways.privacy import ENDS_CHARS, Identity, PromptPolicy, clean, identity, prompt_fields
from streams.settings import Gateway, Settings, SettingsError

KEY = b"sixteen bytes and more"
IDENTITY = Identity(KEY, "k1")


def test_a_hash_is_an_hmac_under_the_tenants_own_key() -> None:
    tenant_key = hmac.new(KEY, b"tenant:acme", hashlib.sha256).digest()
    expected = hmac.new(tenant_key, b"sk-1", hashlib.sha256).hexdigest()
    assert IDENTITY.hash("sk-1", "acme") == f"hmac-sha256:k1:{expected}"


def test_hashes_are_apart_by_value_tenant_key_and_key_id() -> None:
    hashes = {
        IDENTITY.hash("u1", "a"),
        IDENTITY.hash("u2", "a"),
        IDENTITY.hash("u1", "b"),
        Identity(KEY + b"!", "k1").hash("u1", "a"),
        Identity(KEY, "k2").hash("u1", "a"),
    }
    assert len(hashes) == 5


@pytest.mark.parametrize(("key", "key_id"), [(b"short", "1"), (KEY, ""), (KEY, "a:b")])
def test_a_weak_key_or_an_ambiguous_id_is_refused(key: bytes, key_id: str) -> None:
    with pytest.raises(ValueError, match="identity key"):
        Identity(key, key_id)


def test_settings_without_a_usable_key_are_an_error_that_does_not_quote_it() -> None:
    for key in ("", "short-secret"):
        with pytest.raises(SettingsError) as caught:
            identity(Settings(gateway=Gateway(identity_key=key)))
        assert "short-secret" not in str(caught.value)
    assert identity(Settings(gateway=Gateway(identity_key=KEY.decode(), identity_key_id="k1"))).hash(
        "u", "t"
    ) == IDENTITY.hash("u", "t")


def test_ends_are_all_that_the_detectors_read() -> None:
    assert ENDS_CHARS == text._WIDE_CHARS
    assert ENDS_CHARS >= text.END_CHARS


@given(
    st.text(max_size=9_000) | st.integers(1, 60).map(lambda n: "añb c" * 25 * n),
    st.sampled_from(("full", "ends", "hash")),
)
def test_no_more_text_than_the_policy_says(prompt: str, policy: PromptPolicy) -> None:
    fields = prompt_fields(prompt, policy, IDENTITY, "t")
    if not prompt:
        assert fields == {}
        return
    assert fields["prompt_chars"] == len(prompt)
    assert fields["prompt_hash"] == IDENTITY.hash(clean(prompt), "t")
    msgspec.json.encode(fields)  # no lone surrogates
    given_text = fields.get("prompt_text", "")
    ends = fields.get("prompt_head", ""), fields.get("prompt_tail", "")
    if policy == "hash":
        assert not given_text
        assert not any(ends)
    elif policy == "full":
        assert given_text == clean(prompt)
    elif given_text:
        assert len(prompt) <= 2 * ENDS_CHARS
    else:
        assert len(prompt) > 2 * ENDS_CHARS
        assert ends == (prompt[:ENDS_CHARS], prompt[-ENDS_CHARS:])


def test_a_lone_surrogate_is_replaced() -> None:
    fields = prompt_fields("a\ud800b", "full", IDENTITY, "t")
    assert fields["prompt_text"] == "a?b"
