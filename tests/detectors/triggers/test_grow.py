from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

from detectors.triggers.grow import CANDIDATES, SAMPLINGS, STEPS, Router, Sampling, grow, token_pool
from tests.detectors.triggers.gadgets import PROMPTS

HARD = (
    "Prove that the integral converges uniformly and derive the bound on the remainder term of the series.",
    "Design a consensus protocol that tolerates Byzantine faults and prove its liveness under partial synchrony.",
    "Derive the posterior of the hierarchical model and discuss identifiability of its variance components.",
)
EASY = (
    "What is the capital of France?",
    "Say hello to my friend in Spanish.",
    "Write a short poem about my cat and her blue ball.",
    "Which day comes after Tuesday?",
)


@pytest.fixture(scope="module")
def router() -> Router:
    """A small real router: logistic regression on hashed character n-grams, hard against easy prompts."""
    features = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=2**14)
    model = LogisticRegression(C=20).fit(features.transform([*HARD, *EASY]), [1] * len(HARD) + [0] * len(EASY))

    def score(texts: Sequence[str]) -> NDArray[np.float64]:
        scores: NDArray[np.float64] = model.predict_proba(features.transform(texts))[:, 1]
        return scores

    return score


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_gadget_lifts_prompts_it_was_not_grown_on(sampling: Sampling, router: Router) -> None:
    gadget = grow(router, sampling, "up", tokens=10, seed=1)
    assert gadget.score > gadget.start_score
    assert gadget.score == pytest.approx(router([gadget.text])[0])
    assert gadget.queries <= 1 + STEPS * CANDIDATES
    before, after = router(PROMPTS), router([f"{gadget.text} {prompt}" for prompt in PROMPTS])
    assert (after > before).all()


def test_downwards_is_the_mirror_and_suffixes_may_be_longer(router: Router) -> None:
    gadget = grow(router, "wordlike", "down", tokens=30, seed=2)
    assert gadget.score < gadget.start_score
    before, after = router(HARD), router([f"{prompt} {gadget.text}" for prompt in HARD])
    assert (after < before).all()


def test_the_same_seed_grows_the_same_gadget(router: Router) -> None:
    assert grow(router, "frequency", seed=3) == grow(router, "frequency", seed=3)
    assert grow(router, "frequency", seed=3) != grow(router, "frequency", seed=4)


def test_word_like_tokens_are_words_and_not_the_commonest() -> None:
    strings, chances = token_pool("wordlike")
    assert all(s.isalpha() and len(s) >= 3 for s in strings)
    assert "the" not in strings
    assert chances.sum() == pytest.approx(1)
