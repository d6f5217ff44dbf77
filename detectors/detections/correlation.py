"""Sigma's correlation words over the findings of one group: how many, how many different, which together.

The state of a group is a short list that the condition bounds: what cannot change the answer any more is not
kept. It is a function of the findings' order and stream times alone.

    event_count       `gte` findings within the timespan
    value_count       findings with `gte` different values of `field` within it
    temporal          a finding of every kind within it, in any order
    temporal_ordered  a finding of every kind within it, in the order given; where a kind is given twice in a row,
                      the very same prompt again (`likeness`) is no second one
"""

import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from schemas.verdicts import Finding

# What a group has seen: (what, stream time in milliseconds), the oldest first.
Seen = list[tuple[str, int]]

_TIMESPAN = re.compile(r"(\d+)([smhd])")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
MOST = 1_000  # the largest `gte`

# What findings can be grouped by and counted in.
TEXT_FIELDS = frozenset(
    info.name
    for info in msgspec.structs.fields(Finding)
    if info.type is str or all(isinstance(choice, str) for choice in get_args(info.type) or (None,))
)


class Count(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sigma's `condition`. `field`: of value_count, whose values are counted."""

    gte: Annotated[int, Meta(ge=1, le=MOST)]
    field: str = ""


class Correlation(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"group_by": "group-by"}
):
    """Sigma's `correlation`. The kinds of temporal ones are those that the detection reads, in its order."""

    type: Literal["event_count", "value_count", "temporal", "temporal_ordered"]
    group_by: tuple[str, ...]
    timespan: str
    condition: Count | None = None

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if not 0 < milliseconds(self.timespan) <= 7 * _UNIT_MS["d"]:
            raise ValueError("`timespan` is longer than a week, or none")
        if self.type.startswith("temporal") == (self.condition is not None):
            raise ValueError(f"`condition` belongs to the counts, and {self.type} is given one or lacks it")
        if self.condition and (self.type == "value_count") != bool(self.condition.field):
            raise ValueError("`field` belongs to the condition of a value_count, and only there")
        if self.condition and self.condition.field:
            check_fields((self.condition.field,))
        check_fields(self.group_by)

    @property
    def span_ms(self) -> int:
        """The timespan in milliseconds."""
        return milliseconds(self.timespan)

    def advance(self, kinds: Sequence[str], seen: Seen, finding: Finding, now_ms: int) -> tuple[Seen, bool]:
        """Take a finding of the group; the new state, and whether the condition holds now."""
        since = now_ms - self.span_ms
        if self.type == "temporal_ordered":
            return _advance_stages(kinds, seen, finding, now_ms, since)
        if self.condition is None:
            seen = [(what, at) for what, at in seen if at >= since and what != finding.kind]
            seen.append((finding.kind, now_ms))
            return seen, len(seen) == len(set(kinds))
        what = ""
        if self.type == "value_count":
            value = str(getattr(finding, self.condition.field))
            what = blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
            seen = [pair for pair in seen if pair[0] != what]
        seen = [pair for pair in seen if pair[1] >= since]
        seen = [*seen[max(0, len(seen) - self.condition.gte + 1) :], (what, now_ms)]
        return seen, len(seen) >= self.condition.gte


def _advance_stages(
    kinds: Sequence[str], seen: Seen, finding: Finding, now_ms: int, since: int
) -> tuple[Seen, bool]:
    """Keep, for each stage that was reached, by which prompt, and the latest start of a sequence up to it."""
    reached: dict[int, tuple[str, int]] = {}
    for what, at in seen:
        number, _, prompt = what.partition(" ")
        if at >= since:
            reached[int(number)] = prompt, at
    for stage in reversed(range(len(kinds))):  # from the end, so that one finding makes one step
        if kinds[stage] != finding.kind:
            continue
        if stage == 0:
            reached[0] = finding.likeness, now_ms
        elif stage - 1 in reached:
            prompt, start = reached[stage - 1]
            if kinds[stage - 1] != finding.kind or not prompt or prompt != finding.likeness:
                reached[stage] = finding.likeness, start
    return [(f"{stage} {prompt}", at) for stage, (prompt, at) in sorted(reached.items())], len(kinds) - 1 in reached


def milliseconds(timespan: str) -> int:
    """Of Sigma's notation: `30s`, `10m`, `2h`, `1d`.

    Raises:
        ValueError: it is something else.
    """
    found = _TIMESPAN.fullmatch(timespan)
    if found is None:
        raise ValueError(f"{timespan!r} is no timespan: a number and s, m, h or d")
    return int(found[1]) * _UNIT_MS[found[2]]


def check_fields(names: Iterable[str]) -> None:
    """Refuse what findings cannot be grouped by or counted in.

    Raises:
        ValueError: names the first of them.
    """
    for name in names:
        if name not in TEXT_FIELDS:
            raise ValueError(f"findings have no text field `{name}`")
