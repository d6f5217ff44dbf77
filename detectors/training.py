"""Makes the vocabulary's artefact anew from natural text (`pointsman text fit`)."""

import random
from collections import Counter
from pathlib import Path

import numpy as np

from detectors import vocabulary
from detectors.corpus import natural_texts
from detectors.folding import fold


def _byte_of_letter() -> dict[str, int]:
    """The letters that byte-level BPE writes bytes with (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


def _train(texts: list[str]) -> list[bytes]:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(vocabulary.PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary.SIZE - 2,  # two are the separator's merges
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    byte_of = _byte_of_letter()
    ranked = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [bytes(byte_of[letter] for letter in token) for token, _ in ranked]


def fit_vocabulary(path: Path, seed: int = 0) -> dict[str, int]:
    """Train ranks and weights on `corpus.natural_texts`, write them to `path`; tokens counted by kind of text."""
    passages = [(kind, fold(text)) for kind, text in natural_texts(seed)]
    random.Random(seed).shuffle(passages)
    tokens = _train([text for _, text in passages])
    encoding, _ = vocabulary.encoder(tokens)
    counts = np.zeros(len(tokens), np.float64)
    by_kind: Counter[str] = Counter()
    for kind, text in passages:
        encoded = encoding.encode_to_numpy(text, disallowed_special=())
        counts += np.bincount(encoded, minlength=len(tokens))[: len(tokens)]
        by_kind[kind] += len(encoded)
    vocabulary.save(path, tokens, (counts + 0.1) / (counts.sum() + 0.1 * len(tokens)))
    return dict(by_kind)
