"""A prompt's ends as the detectors read them: cut, folded, tokenised; once a prompt, in batches."""

from dataclasses import dataclass


@dataclass(slots=True)
class PromptBatch:
    """Prompts, cut to head and tail."""

    heads: list[str]
    tails: list[str]
