"""Novelty's own tokens: case kept, white space reduced to single blanks before anything else is looked at.

A blank glued to a trigger, a line feed or a tab would otherwise be what a model learns: it says how the text was
put together by whoever wrote the attack, not that it is one.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.bytepairs import BytePairs

SIZE = 40_960
# A piece is a word part with its blank, as `BytePairs` cuts text with case: capitals open a new one.
PATTERN = r" ?[\p{Lu}\p{Lt}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+| ?[\p{Lu}\p{Lt}]+| ?\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]+| "
END_CHARS = 320  # of an end that is read: more than its tokens in all but very long words
END_TOKENS = 48
ROW_TOKENS = 2 * END_TOKENS


def normalise(text: str) -> str:
    """The text with every run of white space as one blank, and one blank before it."""
    return " " + " ".join(text.split())


class Tokeniser:
    """Encodes texts to one row of tokens."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        """Take the tokens in order of rank; all 256 single bytes are among them."""
        self._pairs = BytePairs(tokens, cased=True)

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Tokens of all texts, one after the other, and where each begins (n + 1,)."""
        return self._pairs.encode([normalise(text) for text in texts])

    def spans(self, heads: Sequence[str], tails: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Tokens of prompts given by their ends, and (n, 4): begin and end of the head, then of the tail.

        A prompt so short that both ends are one text has an empty tail.
        """
        texts: list[str] = []
        two = np.zeros(len(heads), np.int64)
        for i, (head, tail) in enumerate(zip(heads, tails, strict=True)):
            if head == tail:
                texts.append(head)
            else:
                texts += [head[:END_CHARS], tail[-END_CHARS:]]
                two[i] = 1
        flat, offsets = self.encode(texts)
        first = np.arange(len(heads)) + np.cumsum(two) - two
        last = first + two
        spans = np.stack([offsets[first], offsets[first + 1], offsets[last], offsets[last + 1]], axis=1)
        spans[two == 0, 2] = spans[two == 0, 3]
        return flat, spans


def train(texts: Sequence[str]) -> list[bytes]:
    """Learn the tokens, in order of rank, from normalised texts (byte-pair encoding, Sennrich et al. 2016)."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    from detectors.training import byte_of_letter

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    byte_of = byte_of_letter()
    ranked = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [bytes(byte_of[letter] for letter in token) for token, _ in ranked]
