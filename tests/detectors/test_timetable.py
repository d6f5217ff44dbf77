"""When what is due: as a search through all names would say."""

from hypothesis import given
from hypothesis import strategies as st

from detectors.timetable import Timetable

NAMES = st.sampled_from("abcdefgh")
STEPS = st.lists(st.tuples(NAMES, st.one_of(st.none(), st.integers(0, 9))) | st.integers(0, 9), max_size=400)


@given(STEPS)
def test_what_is_due_is_found_as_a_search_finds_it(steps: list[tuple[str, int | None] | int]) -> None:
    timetable, times = Timetable(), dict[str, int]()
    for step in steps:
        if isinstance(step, int):
            due = sorted((at, name) for name, at in times.items() if at <= step)
            assert timetable.due(step) == [name for _, name in due]
            times = {name: at for name, at in times.items() if at > step}
        else:
            name, at = step
            timetable.set(name, at)
            times.pop(name, None)
            if at is not None:
                times[name] = at
        assert len(timetable) == len(times)
        assert timetable.soonest == min(times.values(), default=None)


def test_what_was_set_before_is_not_kept_for_ever() -> None:
    timetable = Timetable()
    for n in range(10_000):
        timetable.set("a", 1e9 - n)
    assert len(timetable._heap) < 100
