"""Signatures of records, and the hash chain of thresholds.

What is signed is the record encoded anew: an answer that quotes a ticket may order and space its JSON as it likes.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from schemas.audits import AuditTicket
from schemas.codec import encode
from schemas.thresholds import ThresholdDecision, ThresholdUpdate

T = TypeVar("T", AuditTicket, ThresholdUpdate, ThresholdDecision)

LEAST_KEY_CHARS = 16
_SCHEME = "hmac-sha256"


def derived(key: str, purpose: str) -> bytes:
    """A key for one purpose: who is given it (a router, to verify updates) learns no other."""
    return hmac.digest(key.encode(), f"pointsman {purpose}".encode(), "sha256")


def signed(record: T, key: bytes, key_id: str) -> T:
    """The record with its signature."""
    return msgspec.structs.replace(record, signature=f"{_SCHEME}:{key_id}:{_mac(record, key)}")


def signer(record: T, keys: Mapping[str, bytes]) -> str | None:
    """The id of the key that signed it; None where none of `keys` did, or the record is not what was signed."""
    scheme, _, rest = record.signature.partition(":")
    key_id, _, mac = rest.rpartition(":")
    key = keys.get(key_id)
    if scheme != _SCHEME or key is None or not mac.isascii():
        return None
    return key_id if hmac.compare_digest(mac, _mac(record, key)) else None


def _mac(record: T, key: bytes) -> str:
    return hmac.new(key, _canonical(record, signature=""), "sha256").hexdigest()


def _canonical(record: T, **without: str) -> bytes:
    """Type and content; times in UTC, whatever zone a judge's library wrote them in."""
    times = {
        field: value.astimezone(UTC)
        for field in record.__struct_fields__
        if isinstance(value := getattr(record, field), datetime)
    }
    return type(record).__name__.encode() + b"\n" + encode(msgspec.structs.replace(record, **times, **without))


def read_keys(text: str) -> dict[str, str]:
    """`name:key` of each, with white space between.

    Raises:
        ValueError: a part is none, a name comes twice, or two have one key.
    """
    pairs = [part.partition(":")[::2] for part in text.split()]
    keys = dict(pairs)
    if any(not name or not key for name, key in pairs) or len(set(keys.values())) != len(pairs):
        raise ValueError("`name:key` with spaces between, each with a name and a key of its own")
    return keys


# --- the chain


def linked(update: ThresholdUpdate, prev_hash: str, key: bytes, key_id: str) -> ThresholdUpdate:
    """The update as the link after the one whose hash is `prev_hash` (empty: it is the first)."""
    update = msgspec.structs.replace(update, prev_hash=prev_hash)
    return signed(msgspec.structs.replace(update, hash=link_hash(update)), key, key_id)


def link_hash(update: ThresholdUpdate) -> str:
    """Over all fields but itself and the signature; the link before is in `prev_hash`."""
    return "sha256:" + hashlib.sha256(_canonical(update, hash="", signature="")).hexdigest()


def link_problem(update: ThresholdUpdate, keys: Mapping[str, bytes] | None) -> str:
    """What is wrong with one link by itself; empty: nothing. Without keys the signature is not looked at."""
    if update.hash != link_hash(update):
        return f"version {update.version}: its content is not what its hash says"
    if keys is not None and signer(update, keys) is None:
        return f"version {update.version}: not signed by the feedback service"
    return ""


def chain_problems(links: Sequence[ThresholdUpdate], keys: Mapping[str, bytes] | None) -> list[str]:
    """What is wrong with a whole chain, given by version from 1 on; empty: nothing was edited, left out or added.

    A chain that was cut at its end looks whole: compare its last hash with one from elsewhere (the topic's latest,
    a router's own file).
    """
    problems = [problem for link in links if (problem := link_problem(link, keys))]
    before, expected = "", 1
    for link in links:
        if link.version != expected:
            problems.append(f"version {link.version} where {expected} should be")
        elif link.prev_hash != before:
            problems.append(f"version {link.version}: does not follow the version before")
        before, expected = link.hash, link.version + 1
    return problems
