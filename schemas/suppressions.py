"""Alerts that nobody wants to be told of for a while: known noise, a maintenance window."""

from typing import Annotated

import msgspec
from msgspec import Meta

from schemas.events import Id, Name, Time

Text = Annotated[str, Meta(min_length=1, max_length=1024)]


class Suppression(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """A rule. Alerts whose labels have all of `labels` are published with `suppressed_by`, and nobody is told.

    In force from `starts_at` until before `ends_at`, in stream time: what it does is a function of the log, also
    where a worker does a part of it again. So a rule begins a little later than it is written, never in the past.
    """

    suppression_id: Id
    labels: Annotated[dict[Name, Name], Meta(max_length=16)]  # none: all alerts, a maintenance window
    starts_at: Time
    ends_at: Time
    owner: Text
    reason: Text
    created_at: Time
    ended_by: Name = ""  # who ended it before its time
    ended_because: Annotated[str, Meta(max_length=1024)] = ""
