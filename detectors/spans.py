"""From tokens back to characters: only for what is reported, since it costs as much as reading the prompt."""

from functools import lru_cache

from detectors.folding import fold
from detectors.text import PromptBatch
from detectors.vocabulary import vocabulary


@lru_cache(maxsize=8_192)
def _folded_size(char: str) -> int:
    """Bytes of a character once it is folded."""
    return len(fold(char).encode())


def _characters_of_bytes(text: str) -> list[int] | None:
    """For each byte of the folded text the index of the raw character it came from; None if folding mixed them."""
    folded = fold(text)
    if text.isascii():
        return list(range(len(text)))
    owners: list[int] = []
    for i, char in enumerate(text):
        # Folding is by character but for leetspeak, which keeps lengths.
        owners += [i] * _folded_size(char)
    return owners if len(owners) == len(folded.encode()) else None


def token_places(text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Tokens of a text, runs collapsed, and each one's characters [begin, end)."""
    owners = _characters_of_bytes(text)
    if owners is None:
        return [], []
    pairs = vocabulary().pairs
    folded = fold(text)
    raw = folded.encode()
    tokens: list[int] = []
    places: list[tuple[int, int]] = []
    cursor = 0
    for token in pairs.encode([folded])[0].tolist():
        piece = pairs.tokens[token]
        begin = raw.index(piece, cursor)  # only white space is between two tokens
        cursor = begin + len(piece)
        place = (owners[begin], owners[cursor - 1] + 1)
        if tokens and tokens[-1] == token:
            places[-1] = (places[-1][0], place[1])
        else:
            tokens.append(token)
            places.append(place)
    return tokens, places


def character_span(batch: PromptBatch, i: int, begin: int, end: int) -> tuple[int, int] | None:
    """Characters of the tokens [begin, end) of row `i`: from 0 in the head, or negative, from the tail's end.

    None where the span lies over both ends, or folding does not map back.
    """
    size = int(batch.lengths[i])
    if end > size:
        return None
    wanted = batch.tokens[i, begin:end].tolist()
    tokens, places = token_places(batch.heads[i])
    if tokens[begin:end] == wanted:
        return places[begin][0], places[end - 1][1]
    tail = batch.tails[i]
    tokens, places = token_places(tail)
    first = len(tokens) - (size - begin)
    if first >= 0 and tokens[first : first + len(wanted)] == wanted:
        return places[first][0] - len(tail), places[first + len(wanted) - 1][1] - len(tail)
    return None
