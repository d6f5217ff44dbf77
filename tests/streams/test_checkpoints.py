"""What a partition's checkpoint log says, taken over by its processor."""

import pytest

from detectors.feedback import Feedback, Rules
from schemas.topics import CHECKPOINTS
from streams.checkpoints import CheckpointUnreadable, _load
from streams.replay import FileRecord


def test_of_a_batch_the_record_that_cannot_be_loaded_is_named() -> None:
    state = Feedback(Rules(key="a key of the tests only")).snapshot()
    good = [FileRecord(CHECKPOINTS.name, at, 0, value, key) for at, (key, value) in enumerate(state.items(), 5)]
    bad = FileRecord(CHECKPOINTS.name, 99, 0, b"\xff", good[-1].key or b"")
    processor = Feedback(Rules(key="a key of the tests only"))
    _load(processor, good)
    assert processor.snapshot() == state
    with pytest.raises(CheckpointUnreadable, match=r"\[0\] offset 99 cannot be loaded"):
        _load(processor, [*good, bad, *good])
