"""The memory of ids."""

from hypothesis import given
from hypothesis import strategies as st

from detectors.recent import RecentIds


@given(st.lists(st.integers(0, 900), max_size=1500))
def test_an_id_is_known_while_it_is_among_the_last(numbers: list[int]) -> None:
    recent = RecentIds(512)
    kept: dict[int, None] = {}  # the plain model: in order of adding
    for number in numbers:
        assert recent.add(str(number)) == (number not in kept)
        kept.setdefault(number)
        if len(kept) > 512:
            del kept[next(iter(kept))]


@given(st.integers(0, 1200), st.integers(0, 1200))
def test_loading_the_checkpoints_gives_the_same_memory(first: int, then: int) -> None:
    recent = RecentIds(512)
    log: list[tuple[bytes, bytes]] = []
    for number in range(first):
        recent.add(str(number))
    log += recent.changes()
    for number in range(then):
        recent.add(f"then {number}")
    log += recent.changes()

    restored = RecentIds(512)
    for key, value in dict(log).items():  # compacted
        assert restored.load(key, value)
    restored.loaded()
    assert dict(restored.snapshot()) == dict(recent.snapshot())
    for number in range(600):  # and it goes on alike
        assert restored.add(f"more {number}") == recent.add(f"more {number}")
    assert dict(restored.snapshot()) == dict(recent.snapshot())


def test_a_checkpoint_holds_only_what_was_added_since() -> None:
    recent = RecentIds(65_536)
    for number in range(10_000):
        recent.add(str(number))
    assert len(list(recent.changes())) == 40
    recent.add("one more")
    assert len(list(recent.changes())) == 1
    assert not list(recent.changes())
