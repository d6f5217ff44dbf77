"""The parts of the novelty model against plain ways of computing the same."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.novelty import artefact, ngrams, tagger
from detectors.novelty.features import window
from detectors.novelty.model import Model, windows
from detectors.novelty.scale import fit_scale
from detectors.novelty.tokens import END_CHARS, END_TOKENS, ROW_TOKENS, normalise
from detectors.novelty.training.tagging import ends
from detectors.novelty.trees import evaluate, from_lightgbm, prepare

TEXTS = [
    "Explain, with an example, how a rate limiter works.",
    "def f(x):\n    return x ** 2\n",
    "напиши рассказ о  собаке",
    "!!! oops ```json {\"a\": [1, 2]}```",
    "word " * 400,
    "x",
]  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Model:
    return artefact.load()[0]


@given(st.text())
def test_normalised_text_has_single_blanks_only(text: str) -> None:
    normalised = normalise(text)
    assert normalised == " " + " ".join(normalised.split())
    assert normalise(text.replace(" ", " \n\t")) == normalised


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
def test_tokens_spell_the_normalised_text(model: Model, texts: list[str]) -> None:
    flat, offsets = model.tokeniser.encode(texts)
    tokens = model.parts.base.tokens
    for i, text in enumerate(texts):
        spelt = b"".join(tokens[token] for token in flat[offsets[i] : offsets[i + 1]])
        assert spelt == normalise(text).encode()


def test_a_window_is_the_prompt_or_its_two_ends(model: Model) -> None:
    heads, tails = ends(TEXTS)
    flat, spans = model.tokeniser.spans(heads, tails)
    rows = np.zeros((3, ROW_TOKENS), np.int32)
    for i, text in enumerate(TEXTS):
        n, cut = window(flat, spans[i], *rows)
        tokens = model.tokeniser.encode([text])[0].tolist()
        assert cut == (len(tokens) > ROW_TOKENS)
        if not cut:
            assert rows[0, :n].tolist() == tokens
            assert rows[1, :n].tolist() == [ngrams.BEGIN, *tokens[:-1]][:n]
            assert rows[2, :n].tolist() == [ngrams.BEGIN, ngrams.BEGIN, *tokens[:-2]][:n]
        else:
            assert len(text) > END_CHARS
            assert rows[0, :n].tolist() == tokens[:END_TOKENS] + tokens[-END_TOKENS:]


def test_counts_are_those_of_the_texts_and_little_else_is_found() -> None:
    rng = random.Random(1)
    tokens = [bytes([i]) for i in range(256)]
    # Zipf-like, and of letters without case: nothing folds.
    texts = [[min(200, 128 + int(rng.paretovariate(0.7))) for _ in range(40)] for _ in range(200)]
    flat = np.array([token for text in texts for token in text], np.int32)
    offsets = np.arange(0, len(flat) + 1, 40)
    grams = ngrams.count(flat, offsets, tokens, (40_000, 40_000, 40_000))
    pairs = Counter(pair for text in texts for pair in zip([ngrams.BEGIN, *text], text, strict=False))
    collided = 0
    for (a, t), seen in pairs.items():
        level = ngrams.level(grams.pairs, 0, a, t)
        stands_for = ngrams.COUNTS[level]
        assert seen <= stands_for * 6, (a, t, seen, level)
        collided += stands_for > 3.5 * seen
    assert collided <= 0.02 * len(pairs), "tables are hashed: a rare pair may share a place with a frequent one"
    never = [(a, t) for a in range(128, 200) for t in range(0, 128) if (a, t) not in pairs]
    found = sum(bool(ngrams.level(grams.pairs, 0, a, t)) for a, t in never)
    assert found / len(never) < 2 / 32 * (grams.pairs > 0).mean() * 2 + 0.01


def test_case_folds_to_a_token_that_exists() -> None:
    assert ngrams.fold_case([b"a", b"A", b"B", b" Word", b" word"]).tolist() == [0, 0, 2, 4, 4]


def test_trees_give_what_the_library_gives() -> None:
    import lightgbm

    rng = np.random.default_rng(0)
    features = rng.normal(size=(2000, 12)).astype(np.float32)
    labels = features[:, 0] * features[:, 1] + features[:, 2] > 0.3
    booster = lightgbm.LGBMClassifier(n_estimators=20, n_jobs=1, verbose=-1).fit(features, labels).booster_
    trees = from_lightgbm(booster.dump_model())
    theirs = booster.predict(features, raw_score=True)
    for n in (len(features), len(features) - 1, 1):  # rows go down in fours
        ours = np.zeros(n)
        evaluate(features[:n], prepare(trees), ours)
        # A threshold halfway between two float64 may fall on the other side in float32: rare, never systematic.
        assert np.isclose(ours, theirs[:n], atol=1e-4).mean() > 0.995


def test_the_tagger_gives_what_torch_gives(model: Model) -> None:
    import torch
    from torch.nn import functional

    base, weights = model.parts.base, model.parts.tagger
    heads, tails = ends(TEXTS)
    rows, seen, lengths = windows(base, heads, tails)
    ready, room = tagger.prepare(weights, base.classes), tagger.make_room()
    made = base.classes * np.float32(0.01)
    for i, n in enumerate(lengths.tolist()):
        tokens = rows[i, :n]
        tagger.tag(rows[i], n, seen[i], ready, room)
        inputs = np.concatenate(
            [weights.embedding[tokens] * weights.embedding_step, made[tokens], seen[i, :n]], axis=1
        ).T[None]
        first = np.concatenate([weights.token[::-1], weights.channel], axis=1)
        x = functional.conv1d(
            torch.tensor(inputs.astype(np.float32)),
            torch.tensor(first.transpose(2, 1, 0).copy()),
            torch.tensor(weights.bias),
            padding=1,
        ).relu()
        for layer, dilation in enumerate(tagger.DILATIONS):
            kernel = torch.tensor(weights.later[layer].transpose(2, 1, 0).copy())
            bias = torch.tensor(weights.later_bias[layer])
            padding = tagger.TAPS // 2 * dilation
            x = x + functional.conv1d(x, kernel, bias, padding=padding, dilation=dilation).relu()
        wanted = (x[0].T @ torch.tensor(weights.out) + torch.tensor(weights.out_bias)).numpy()
        np.testing.assert_allclose(room.odds[:n, 0], wanted, rtol=1e-3, atol=1e-3)


def test_the_scale_reads_as_benign_quantiles() -> None:
    benign = np.random.default_rng(0).normal(size=50_000).astype(np.float32)
    scale = fit_scale(benign)
    for share in (0.5, 0.05, 0.01, 0.001):
        level = np.quantile(benign, 1 - share).astype(np.float32)
        assert 1 - scale.score(np.array([level]))[0] == pytest.approx(share, rel=0.25)
    rising = scale.score(np.linspace(-5, 50, 500).astype(np.float32))
    assert (np.diff(rising) >= 0).all()
    assert rising[0] == 0
    assert rising[-1] < 1


def test_a_small_sample_sets_no_scale() -> None:
    with pytest.raises(ValueError, match="at least 200"):
        fit_scale(np.zeros(199, np.float32))
