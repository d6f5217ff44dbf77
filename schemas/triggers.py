"""The trigger catalogue's entries, on the compacted topic `pointsman.triggers.v1` (key: `trigger_id`).

What the fleet lane proposes is such a record too, on a topic that no worker follows: `pointsman.proposals.v1`.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from schemas.events import Id, Name, Time


class Trigger(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """A string known to move routers. Only `approved` entries are matched; nothing is approved unreviewed."""

    trigger_id: Id
    version: Annotated[int, Meta(ge=1)]
    text: Annotated[str, Meta(min_length=1, max_length=8192)]
    kind: Literal["lexical", "semantic", "both"]
    position: Literal["any", "prefix", "suffix"] = "any"
    direction: Literal["up", "down"] = "up"
    review: Literal["proposed", "approved", "rejected", "retired"] = "proposed"
    provenance: Name = ""  # grown, imported from, discovered in
    licence: Name = ""
    bits: float = 0.0  # information that the review measured
    benign_hits: int = 0  # on the review's reference texts, at share >= 0.7
    reviewer: Name = ""
    reason: Annotated[str, Meta(max_length=1024)] = ""
    updated_at: Time
