"""What counts as a prompt tried again."""

from detectors.repeats import SAME_BITS, is_repeat


def test_a_few_bits_are_the_same_prompt_and_more_are_not() -> None:
    last = 0x0123_4567_89AB_CDEF
    assert is_repeat(last, last)
    assert is_repeat(last ^ ((1 << SAME_BITS) - 1), last)
    assert not is_repeat(last ^ ((1 << (SAME_BITS + 1)) - 1), last)


def test_a_prompt_without_a_likeness_is_no_repeat() -> None:
    assert not is_repeat(0, 0)
