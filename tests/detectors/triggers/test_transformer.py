"""The real sentence transformer, as the second stage uses it."""

from detectors.training import sentence_transformer_path
from detectors.triggers.transformer import Transformer

PHRASE = "think step by step and weigh the pros and cons"


def test_it_tells_meaning_apart() -> None:
    transformer = Transformer(sentence_transformer_path())
    pairs = [
        (PHRASE, PHRASE),
        ("reason it through one step at a time, with advantages and drawbacks", PHRASE),
        ("the train to Lyon leaves at noon", PHRASE),
    ]
    same, alike, other = transformer.cosines(pairs).tolist()
    assert same > 0.999
    assert same > alike > 0.4 > other
    assert transformer.cosines(pairs[1:2]).tolist() == [alike], "a cosine does not depend on its neighbours"
