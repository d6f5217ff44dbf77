"""A checkpoint on the compacted checkpoints topics: the keys that changed, then a marker, in one transaction."""

import msgspec


class Marker(msgspec.Struct, kw_only=True, gc=False):
    """Written last (key `marker`): the state before it is what `offset` says, no more and no less."""

    offset: int  # next input offset to read
    time_ms: int  # stream time reached
    format: int = 1  # of the state's values; a reader refuses a newer one
    counters: dict[str, int] = {}
