"""A prompt tried again: what is counted per principal must not count a retry or an edit as new evidence."""

SAME_BITS = 12  # of 64: prompts whose likenesses differ by no more are one prompt


def is_repeat(likeness: int, last: int) -> bool:
    """Whether a prompt is much the same as the last one, by their likenesses (`PromptFacts`; 0: unknown)."""
    return likeness != 0 and (likeness ^ last).bit_count() <= SAME_BITS
