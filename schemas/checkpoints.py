"""A checkpoint on the compacted checkpoints topics: the keys that changed, then a marker, in one transaction."""

import msgspec

FORMAT = 1


class Marker(msgspec.Struct, kw_only=True, gc=False):
    """Written last (key `marker`): the state before it is what `offset` says, no more and no less."""

    offset: int  # next input offset to read
    time_ms: int  # stream time reached
    stamp_ms: int = 0  # the last record's own time; 0: not known
    format: int = FORMAT  # of the state's values; a reader refuses a newer one
    counters: dict[str, int] = {}


def check_format(marker: Marker) -> None:
    """Refuse what a newer release has written.

    Raises:
        ValueError: it has a format that this release does not know.
    """
    if marker.format > FORMAT:
        raise ValueError(f"state of format {marker.format}; this release knows {FORMAT}")
