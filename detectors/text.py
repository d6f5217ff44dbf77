"""A prompt's ends as the detectors read them: cut, folded, tokenised; once a prompt, in batches.

The cost does not depend on a prompt's length: only about 520 characters of each end are looked at (of a
prompt up to twice that, all of it).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.folding import fold, visible
from detectors.vocabulary import vocabulary
from schemas.events import Request

END_CHARS = 520  # of a head or a tail
END_TOKENS = 112
ROW_TOKENS = 2 * END_TOKENS
# An end with this many blanks or unprintable characters may be padding: then more of the prompt is squeezed first.
_PADDED_CHARS = 200
_WIDE_CHARS = 4 * END_CHARS


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Prompts as rows; equal to what each would be in a batch of its own.

    A row of `tokens` is the prompt's whole folded text where that fits in `ROW_TOKENS`, else its first and last
    `END_TOKENS` tokens: a short prompt has no head and tail that must be matched twice. Runs of one token are
    collapsed. Tokens have no case and no white space; who needs those reads `heads` and `tails`, which are also
    what the spans of characters in reasons are in.
    """

    heads: list[str]  # raw, at most END_CHARS; blank padding squeezed
    tails: list[str]  # raw, at most END_CHARS; equal to the head for a prompt that short
    readable: NDArray[np.bool_]  # (n,): False where the event carries no text: detectors answer None
    tokens: NDArray[np.int32]  # (n, ROW_TOKENS), -1 after the row's end
    lengths: NDArray[np.int32]  # (n,)
    pieces: list[tuple[str, ...]]  # what the tokens are of: the whole text, or head and tail; none where unreadable

    def __len__(self) -> int:
        return len(self.heads)

    def same(self, i: int) -> bool:
        """Whether the prompt is so short that its head and its tail are one text."""
        return self.heads[i] == self.tails[i]


class _Cut(NamedTuple):
    head: str
    tail: str
    pieces: tuple[str, ...]  # to encode: the whole text, or head and tail


def _is_padded(end: str) -> bool:
    if end.isascii():
        blanks = end.count(" ") + end.count("\n") + end.count("\t")
    else:
        rest = "".join(end.split())
        blanks = len(end) - len(rest)
        if not rest.isprintable():
            blanks += sum(not c.isprintable() for c in rest)
    return blanks > _PADDED_CHARS


def _cut(head: str, tail: str, whole: bool) -> _Cut:
    """Cut a prompt given by its two ends; `whole`: head and tail are each the whole text."""
    if whole and len(head) <= END_CHARS:
        return _Cut(head, head, (head,))
    near, far = head[:END_CHARS], tail[-END_CHARS:]
    if _is_padded(near):
        near = visible(head[:_WIDE_CHARS])[:END_CHARS]
    if _is_padded(far):
        far = visible(tail[-_WIDE_CHARS:])[-END_CHARS:]
    if whole and len(head) <= 2 * END_CHARS:
        return _Cut(near, far, (head,))
    return _Cut(near, far, (near, far))


def _cut_request(request: Request) -> _Cut | None:
    if request.prompt_text:
        return _cut(request.prompt_text, request.prompt_text, whole=True)
    head, tail = request.prompt_head, request.prompt_tail
    if not head and not tail:
        return None
    if not head or not tail:
        return _cut(head or tail, head or tail, whole=True)
    return _cut(head, tail, whole=head == tail)


def _rows(pieces: Sequence[tuple[str, ...]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Token rows of prompts given as no, one or two pieces each."""
    flat, offsets = vocabulary().encode([fold(piece) for prompt in pieces for piece in prompt])
    bounds = offsets.tolist()
    tokens = np.full((len(pieces), ROW_TOKENS), -1, np.int32)
    lengths = np.zeros(len(pieces), np.int32)
    piece = 0
    for i, prompt in enumerate(pieces):
        begin, middle, end = bounds[piece], bounds[piece + len(prompt) // 2], bounds[piece + len(prompt)]
        if len(prompt) < 2 and end - begin <= ROW_TOKENS:
            tokens[i, : end - begin] = flat[begin:end]
            lengths[i] = end - begin
        else:
            head_end = min(begin + END_TOKENS, middle if len(prompt) == 2 else end)
            tail_begin = max(end - END_TOKENS, middle)
            head, size = head_end - begin, head_end - begin + end - tail_begin
            tokens[i, :head] = flat[begin:head_end]
            tokens[i, head:size] = flat[tail_begin:end]
            lengths[i] = size
        piece += len(prompt)
    return tokens, lengths


def _batch(cuts: Sequence[_Cut | None]) -> PromptBatch:
    pieces = [cut.pieces if cut else () for cut in cuts]
    tokens, lengths = _rows(pieces)
    return PromptBatch(
        heads=[cut.head if cut else "" for cut in cuts],
        tails=[cut.tail if cut else "" for cut in cuts],
        readable=np.array([cut is not None for cut in cuts], np.bool_),
        tokens=tokens,
        lengths=lengths,
        pieces=pieces,
    )


def read_prompts(requests: Sequence[Request]) -> PromptBatch:
    """Read the prompts of request events: `prompt_text`, else `prompt_head` and `prompt_tail`."""
    return _batch([_cut_request(request) for request in requests])


def read_texts(texts: Sequence[str]) -> PromptBatch:
    """Read prompts given as texts: every one is readable, the empty text too."""
    return _batch([_cut(text, text, whole=True) for text in texts])


def tokenise(texts: Sequence[str]) -> list[NDArray[np.int32]]:
    """The tokens of whole texts, uncut, as a row of a batch would hold them: for catalogues and training."""
    flat, offsets = vocabulary().encode([fold(text) for text in texts])
    return np.split(flat, offsets[1:-1])
