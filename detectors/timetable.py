"""What is due when: the soonest is found without a look at the rest."""

from heapq import heapify, heappop, heappush

_SLACK = 64


class Timetable:
    """A time for each of some names, in any unit. Derived from a state, never part of one."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []  # with what was set before, which is skipped

    def __len__(self) -> int:
        return len(self._at)

    @property
    def soonest(self) -> float | None:
        """The first time; None where no name has one."""
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def set(self, name: str, at: float | None) -> None:
        """Something is due at that time, instead of another; None: nothing."""
        if at is None:
            self._at.pop(name, None)
        elif self._at.get(name) != at:
            self._at[name] = at
            heappush(self._heap, (at, name))
        if len(self._heap) > 2 * len(self._at) + _SLACK:
            self._heap = [(time, each) for each, time in self._at.items()]
            heapify(self._heap)

    def due(self, now: float) -> list[str]:
        """Take out the names whose time has come, the soonest first, then by name."""
        names = []
        while (at := self.soonest) is not None and at <= now:
            _, name = heappop(self._heap)
            del self._at[name]
            names.append(name)
        return names
