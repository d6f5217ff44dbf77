"""Folding: what an attacker can change in a string without changing how it reads is taken out of it."""

import unicodedata

# Letters that read as Latin ones, after NFKD and lower case (full-width and mathematical letters are NFKD's work).
# Shapes after Unicode's confusables (UTS 39), reduced to letters that people pass off as Latin.
_READ_AS = {
    "a": "аαɑᴀ", "b": "вʙƅ", "c": "сᴄϲ", "d": "ԁᴅ", "e": "еεᴇ", "f": "ꜰ", "g": "ɡɢԍց", "h": "нһհʜ",
    "i": "іιıɪ", "j": "јᴊ", "k": "кκᴋ", "l": "ӏʟ", "m": "мᴍ", "n": "ηոɴ", "o": "оοσօᴏ", "p": "рρᴘ",
    "q": "ԛզ", "s": "ѕꜱ", "t": "тτᴛ", "u": "υսᴜ", "v": "νѵᴠ", "w": "ԝωѡᴡ", "x": "хχ", "y": "уγүʏ",
    "z": "ζᴢ", "ss": "ß",
}  # fmt: skip
_LOOKALIKES = {ord(char): latin for latin, chars in _READ_AS.items() for char in chars}
# Drawn as nothing although Unicode does not class them as formatting: fillers, variation selectors.
_INVISIBLE = {
    0x034F,
    0x115F,
    0x1160,
    0x17B4,
    0x17B5,
    0x3164,
    0xFFA0,
    *range(0x180B, 0x1810),
    *range(0xFE00, 0xFE10),
}
_INVISIBLE |= set(range(0xE0000, 0xE0200))


class _Table(dict[int, str | int | None]):
    """A table for `str.translate` that works out a character when it is first seen."""

    def __missing__(self, char: int) -> str | int | None:
        text = chr(char)
        drop = char in _INVISIBLE or unicodedata.combining(text) or unicodedata.category(text) in ("Cf", "Cs", "Co")
        self[char] = folded = None if drop else _LOOKALIKES.get(char, char)
        return folded


_TABLE = _Table()

# Digits and signs inside a word stand for letters ("th3 qu1ck"); a third of the word must be letters.
_SIGNS = "013457@$"
_LEET = str.maketrans(_SIGNS, "oieastas")
# Characters by what they are: small letters, signs of leetspeak, other digits, the rest.
_SHAPE = bytes(
    ord("a" if c in range(97, 123) else "1" if chr(c) in _SIGNS else "2" if chr(c) in "2689" else " ")
    for c in range(256)
)


def _unleet(text: str) -> str:
    """Read digits and signs as letters in words that have one beside a letter, and enough letters.

    By finding them in the text's shape, which costs a tenth of a regular expression: most prompts have few or none.
    """
    shape = text.encode("latin-1", "replace").translate(_SHAPE)  # a byte a character
    parts, done = [], 0
    while (at := min(_found(shape, b"a1", done), _found(shape, b"1a", done))) < len(shape):
        begin, end = shape.rfind(b" ", 0, at) + 1, _found(shape, b" ", at)
        word = text[begin:end]
        leet = 3 * shape.count(b"a", begin, end) >= end - begin
        parts += [text[done:begin], word.translate(_LEET) if leet else word]
        done = end
    return "".join([*parts, text[done:]]) if parts else text


def _found(shape: bytes, what: bytes, since: int) -> int:
    """Where it stands next; the text's end if nowhere."""
    at = shape.find(what, since)
    return at if at >= 0 else len(shape)


def fold(text: str) -> str:
    """Fold: NFKD, lower case, look-alikes to Latin, marks and invisible characters dropped, leetspeak undone.

    Idempotent, and never raises. White space stays as it is.
    """
    text = text.lower()
    if not text.isascii():
        # Lower case comes first and last: some capitals decompose only as small letters, and the other way round.
        text = unicodedata.normalize("NFKD", text).lower().translate(_TABLE)
    return _unleet(text)


def visible(text: str) -> str:
    """Drop invisible characters and squeeze white space: padding must not push a trigger out of the cut."""
    if not text.isascii():
        text = "".join([c for c in text if not (ord(c) in _INVISIBLE or unicodedata.category(c) == "Cf")])
    return " ".join(text.split())
