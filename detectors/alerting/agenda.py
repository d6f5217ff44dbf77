"""What is to be looked at, and when: a heap in which a name stands once."""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

_NEVER = 2**62


class Agenda:
    """Names by the time at which each is due next. What was put off is found out when its old time comes."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []
        self._at: dict[str, int] = {}  # the times that count: the heap has old ones too

    def put(self, name: str, at: int) -> None:
        """Look at `name` at `at` (ms), unless that is to be done earlier."""
        if at >= self._at.get(name, _NEVER):
            return
        self._at[name] = at
        heappush(self._heap, (at, name))
        if len(self._heap) > 2 * len(self._at) + 1_000:
            self._heap = [(at, name) for name, at in self._at.items()]
            heapify(self._heap)

    def drop(self, name: str) -> None:
        """Do not look at `name`."""
        self._at.pop(name, None)

    def due(self, now: int) -> Iterator[str]:
        """Take out what is due at `now` (ms), in the order of its time."""
        while self._heap and self._heap[0][0] <= now:
            at, name = heappop(self._heap)
            if self._at.get(name) == at:
                del self._at[name]
                yield name
