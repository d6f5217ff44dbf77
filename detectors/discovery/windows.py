"""What `discovery` needs of a prompt whose text is dropped: its tokens as buckets, and text only where allowed."""

from functools import cache
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.discovery.expectation import BUCKETS
from detectors.discovery.kernel import MOST_TOKENS
from detectors.spans import Places, token_places
from detectors.text import ROW_TOKENS, PromptBatch
from detectors.vocabulary import SIZE, vocabulary

if ROW_TOKENS > MOST_TOKENS:
    raise AssertionError("a row must fit into the kernel's scratch")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, ...]).decode

# About four tokens share a bucket: enough to tell windows apart and to predict scores, not to read a prompt from.
BUCKET_OF = ((np.arange(SIZE, dtype=np.uint32) * 40_503 >> 2) % BUCKETS).astype(np.uint16)


class Seen(NamedTuple):
    """A prompt's ends: no texts where they may not be kept."""

    tokens: NDArray[np.uint16]
    packed_pieces: bytes  # unpacked for the few prompts whose window is told

    @property
    def pieces(self) -> tuple[str, ...]:
        """As `PromptBatch.pieces`; none where they may not be kept."""
        return _decode(self.packed_pieces) if self.packed_pieces else ()

    def window_text(self, begin: int, end: int) -> str:
        """The text of the tokens [begin, end); empty where none was kept, or where folding does not map back."""
        pieces, wanted = self.pieces, self.tokens[begin:end]
        if not pieces:
            return ""
        # Cut in the middle: a window is in the first part of the row or in its last.
        first, last = pieces[0], pieces[-1]
        places = token_places(first)
        text = _text_at(first, places, begin, wanted)
        if text or len(places.tokens) == len(self.tokens):
            return text
        if len(pieces) > 1:
            places = token_places(last)
        return _text_at(last, places, begin - len(self.tokens) + len(places.tokens), wanted)


def _text_at(piece: str, places: Places, begin: int, wanted: NDArray[np.uint16]) -> str:
    """The text of the tokens from `begin` on, if they are the wanted ones."""
    end = begin + len(wanted)
    if begin < 0 or BUCKET_OF[places.tokens[begin:end]].tobytes() != wanted.tobytes():
        return ""
    return piece[places.begin[begin] : places.end[end - 1]]


def pack_windows(batch: PromptBatch, with_text: bool = False) -> list[bytes]:
    """`PromptFacts.windows` of each prompt: the number of tokens, their buckets, and the text where asked for."""
    buckets = BUCKET_OF[batch.tokens]
    packed = []
    for i, size in enumerate(batch.lengths.tolist()):
        tokens = size.to_bytes(2, "little") + buckets[i, :size].tobytes()
        if with_text:
            tokens += _encode(batch.pieces[i])
        packed.append(tokens)
    return packed


def unpack_windows(windows: bytes) -> Seen:
    """What `pack_windows` packed.

    Raises:
        ValueError: it did not.
    """
    size = int.from_bytes(windows[:2], "little")
    if size > MOST_TOKENS or len(windows) < 2 + 2 * size:
        raise ValueError("no packed windows")
    return Seen(np.frombuffer(windows, np.uint16, size, 2), windows[2 + 2 * size :])


@cache
def bucket_bits() -> NDArray[np.float32]:
    """float32[BUCKETS]: the information of a bucket, that of its commonest token."""
    bits = np.full(BUCKETS, np.inf, np.float32)
    np.minimum.at(bits, BUCKET_OF, vocabulary().bits)
    return np.where(np.isinf(bits), 0, bits).astype(np.float32)
