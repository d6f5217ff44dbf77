"""What leaves a gateway: identities as keyed hashes, and as much of the prompt as its operator lets go."""

import hmac
from functools import lru_cache
from hashlib import sha256
from typing import Any, Literal

from streams.settings import Settings, SettingsError

PromptPolicy = Literal["full", "ends", "hash"]

# Of each end of a prompt. The detectors read about a quarter of this, and all of it where blanks pad the end.
ENDS_CHARS = 2_080
TENANTS_KEPT = 4_096


class Identity:
    """HMAC-SHA256 under a key of each tenant's own, which is derived from one secret.

    The same key or user in two tenants gives two hashes. `key_id` names the secret in each hash, so that a
    rotated one is told apart; a rotation makes every principal a new one.
    """

    def __init__(self, key: bytes, key_id: str = "1") -> None:
        """`key`: at least 16 bytes.

        Raises:
            ValueError: the key is shorter, or the key's id is empty or holds a colon.
        """
        if len(key) < 16:
            raise ValueError("the identity key must have at least 16 bytes")
        if not key_id or ":" in key_id:
            raise ValueError("the identity key's id must be a name without colon")
        self._prefix = f"hmac-sha256:{key_id}:"
        self._tenant_key = lru_cache(maxsize=TENANTS_KEPT)(
            lambda tenant: hmac.digest(key, b"tenant:" + _bytes(tenant), sha256)
        )

    def hash(self, value: str, tenant: str = "default") -> str:
        """`hmac-sha256:<key_id>:<64 hex digits>`."""
        return self._prefix + hmac.digest(self._tenant_key(tenant), _bytes(value), sha256).hex()


def identity(settings: Settings) -> Identity:
    """The hashes that the settings ask for.

    Raises:
        SettingsError: no key, or one that cannot be used.
    """
    gateway = settings.gateway
    if not gateway.identity_key:
        raise SettingsError(
            ["POINTSMAN_GATEWAY_IDENTITY_KEY (or ..._FILE) is not set: identities need a secret key"]
        )
    try:
        return Identity(gateway.identity_key.encode(), gateway.identity_key_id)
    except ValueError as error:
        raise SettingsError([f"gateway.identity_key: {error}"]) from error


def prompt_fields(text: str, policy: PromptPolicy, identity: Identity, tenant: str) -> dict[str, Any]:
    """The Request's fields of a prompt: hash and sizes always, text as the policy has it.

    `ends` keeps ENDS_CHARS of each end, which is all that the detectors read; with `hash` nothing can read the
    prompt, and the verdict is `unjudged: no_text` unless another detector has something to say.
    """
    if not text:
        return {}
    text = clean(text)
    fields: dict[str, Any] = {
        "prompt_hash": identity.hash(text, tenant),
        "prompt_chars": len(text),
        "prompt_tokens_est": (len(text) + 3) // 4,
    }
    if policy == "full" or (policy == "ends" and len(text) <= 2 * ENDS_CHARS):
        fields["prompt_text"] = text
    elif policy == "ends":
        fields |= {"prompt_head": text[:ENDS_CHARS], "prompt_tail": text[-ENDS_CHARS:]}
    return fields


def clean(text: str) -> str:
    """Text that UTF-8 can carry: JSON may hold lone surrogates, and an event with one could not be sent."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
