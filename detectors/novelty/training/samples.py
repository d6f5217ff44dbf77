"""Training prompts: natural ones of many kinds, ones that only look odd, and ones with an attack at an end."""

import base64
import json
import random
import re
import string
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from detectors.novelty.training.texts import Document

End: TypeAlias = Literal["prefix", "suffix"]
Attack: TypeAlias = Callable[[random.Random, str, End], str]

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)|\n+")
_WORD = re.compile(r"[^\W\d_]{3,12}")
_CODE = ("python", "library", "other_code")
_LETTERS = string.ascii_letters + string.digits
# How much of the training carriers each kind of text gives, where there is any of it.
_WEIGHTS = {"own": 30, "prompts": 12, "bigbench": 26, "evals": 13, "help": 3, "quotes": 6, "facts": 3,
            "chat": 2, "dict": 3, "fortunes": 3, "handbook": 3, "man": 3,
            "manuals": 2, "translations": 3, "documents": 3, "api_documents": 2, "python": 4, "library": 3,
            "other_code": 4}  # fmt: skip
# How much of the attacks each family gives, of 2: what is near to natural text teaches less for more of it.
_SHARES = {"glued_fragments": 4, "uniform_tokens": 3, "dictionary_words": 3,
           "chunk_salad": 1, "interleaved": 1, "shuffled_sentences": 1}  # fmt: skip
_OPENINGS = (
    "Write a function that", "Fix this code:", "Explain the following:", "Summarize this text:", "Tell me",
    "Translate into English:", "Rewrite:", "Find the bug", "Give me", "Classify the following", "how do i", "pls",
    "Question:", "Input:", "Given the following text, answer the question.", "Convert this to Python", "tl;dr",
    "Extract the keywords", "what is wrong with this", "Identify the odd one out.", "Sort these words:", "Context:",
    "Generate a sentence using these words:", "Categorize these items:", "Edit the following sentence for grammar.",
    "напиши", "переведи на английский:", "объясни", "Erkläre", "Übersetze:", "Escribe", "Résume ce texte :",
    "写一个", "Proofread this", "Is this valid?", "Debug:", "Here is my log:", "Use these keywords:",
)  # fmt: skip
_SLOTS = (
    "{name}",
    "{{input}}",
    "<PERSON>",
    "[INSERT TEXT]",
    "%s",
    "${value}",
    "<|user|>",
    "{0}",
    "[[topic]]",
    "__NAME__",
)
_TICS = ("!!!!!!", "??????", "......", "asdf asdf", "lol", "hahaha", "thx!!", "------", "=====", "***", "😀😀",
         "🙏", "```", '"""', ")))", "...?", "ASAP", "EOF", "<br>", ">>>", "P.S.", "1)", "- ", "->")  # fmt: skip


class Sample(NamedTuple):
    """A prompt; of an attack, the family and where in the text the attack stands (0, 0: benign)."""

    text: str
    family: str
    begin: int
    end: int


class Carriers:
    """Natural prompts and prompt-like passages, drawn by kind of text."""

    def __init__(self, documents: Sequence[Document], rng: random.Random) -> None:
        """Take the documents of one split."""
        self._rng = rng
        pools: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for document in documents:
            coarse = document.group if document.kind in ("own", "bigbench", "evals") else document.kind
            pools[document.kind][coarse].append(document.text)
        # BIG-bench's groups differ in size by a thousand: each counts by its size's square root.
        self._pools = {
            kind: (list(groups.values()), [len(texts) ** 0.5 for texts in groups.values()])
            for kind, groups in pools.items()
        }
        self._kinds = sorted(pools)
        self._code = [kind for kind in _CODE if kind in pools]
        self._weights = [_WEIGHTS.get(kind, 4) for kind in self._kinds]
        sample = [rng.choice(documents).text[:600] for _ in range(4000)] if documents else []
        self.words = sorted({word for text in sample for word in _WORD.findall(text)}) or ["word"]

    def text(self) -> str:
        """A whole text of any kind."""
        rng = self._rng
        groups, weights = self._pools[rng.choices(self._kinds, self._weights)[0]]
        return rng.choice(rng.choices(groups, weights)[0])

    def passage(self) -> str:
        """A prompt, or a passage of prompt-like length that begins and ends with a sentence where it can."""
        rng = self._rng
        text = ""
        for _ in range(12):
            text = self.text()
            length = min(1500, max(20, int(rng.lognormvariate(5.0, 0.9))))
            if len(text) <= 1.4 * length or (len(text) < 1200 and rng.random() < 0.4):
                passage = text.strip()
            else:
                passage = self._cut(text, length)
            if len(passage) > 12 and sum(c.isalnum() for c in passage) > 0.3 * len(passage):
                return passage
        return text[:300].strip()

    def code(self) -> str:
        """Some lines of a program; a passage of any kind where there is no program."""
        rng = self._rng
        if not self._code:
            return self.passage()
        groups, weights = self._pools[rng.choice(self._code)]
        lines = rng.choice(rng.choices(groups, weights)[0]).split("\n")
        at = rng.randrange(max(1, len(lines) - 3))
        return "\n".join(lines[at : at + rng.randint(1, 12)])[:600]

    def _cut(self, text: str, length: int) -> str:
        rng = self._rng
        at = rng.randrange(max(1, len(text) - length // 2))
        piece = text[at : at + length + 200]
        breaks = list(_SENTENCE.finditer(piece))
        if len(breaks) > 1 and rng.random() < 0.93:
            begin = breaks[0].end()
            ends = [found.start() for found in breaks[1:] if found.start() > begin + 15]
            return (
                piece[begin : max((end for end in ends if end <= begin + length), default=ends[0])] if ends else ""
            )
        piece = piece[:length]
        first = piece.find(" ")
        piece = piece[first + 1 :] if 0 < first < 40 else piece
        return piece.rsplit(" ", 1)[0] if rng.random() < 0.8 else piece


def _code(rng: random.Random, n: int) -> str:
    return "".join(rng.choices(_LETTERS, k=n))


def _typos(rng: random.Random, text: str) -> str:
    letters = list(text)
    for _ in range(max(1, len(letters) // rng.choice((15, 25, 40)))):
        at, kind = rng.randrange(len(letters)), rng.random()
        if kind < 0.3:
            letters[at] = ""
        elif kind < 0.6:
            letters[at] += rng.choice(string.ascii_lowercase)
        elif kind < 0.8 and at + 1 < len(letters):
            letters[at], letters[at + 1] = letters[at + 1], letters[at]
        else:
            letters[at] = rng.choice(string.ascii_lowercase)
    return "".join(letters)


def _blob(rng: random.Random, words: Sequence[str]) -> str:
    return base64.b64encode(rng.randbytes(rng.randrange(9, 60))).decode()


def _url(rng: random.Random, words: Sequence[str]) -> str:
    host = rng.choice((rng.choice(words).lower(), _code(rng, rng.randrange(4, 9)).lower()))
    path = "/".join(rng.choice((rng.choice(words), _code(rng, 6))) for _ in range(rng.randrange(1, 4)))
    query = rng.choice(("", f"?id={_code(rng, 8)}", f"?q=%D0%BF{_code(rng, 5)}", "#" + rng.choice(words)))
    return f"https://{host}.{rng.choice(('com', 'org', 'io', 'ru', 'net', 'de'))}/{path}{query}"


def _log(rng: random.Random, words: Sequence[str]) -> str:
    lines = []
    for _ in range(rng.randrange(1, 5)):
        day, hour = f"2024-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}", f"{rng.randrange(24):02d}"
        source = f"{rng.choice(('INFO', 'WARN', 'ERROR', 'DEBUG'))} [{_code(rng, 5)}-{rng.randrange(99)}]"
        what = f"{rng.choice(words)}.{rng.choice(words)}: {rng.choice(words)} id={_code(rng, 8)}"
        lines.append(f"{day}T{hour}:{rng.randrange(60):02d}:{rng.randrange(60):02d}Z {source} {what}")
    return "\n".join(lines)


def _keywords(rng: random.Random, words: Sequence[str]) -> str:
    between = rng.choices((", ", ",", "\n", " | ", "; ", "\n- ", " / ", " "), (8, 3, 5, 2, 3, 3, 1, 1))[0]
    return between.join(rng.choices(words, k=rng.randrange(3, 14)))


def _numbers(rng: random.Random, words: Sequence[str]) -> str:
    between = rng.choice((", ", " ", "\t", ","))
    return between.join(str(round(rng.uniform(-1e3, 1e3), rng.randrange(5))) for _ in range(rng.randrange(3, 20)))


def _rows(rng: random.Random, words: Sequence[str]) -> str:
    rule = rng.choice(("|", ",", "\t", " | "))
    return "\n".join(
        rule.join([rng.choice(words), *(str(rng.randrange(10_000)) for _ in range(3))])
        for _ in range(rng.randrange(2, 6))
    )


def _identifier(rng: random.Random, words: Sequence[str]) -> str:
    return rng.choice(
        (str(uuid.UUID(int=rng.getrandbits(128))), _code(rng, rng.randrange(16, 44)), rng.randbytes(16).hex())
    )


def _tic(rng: random.Random, words: Sequence[str]) -> str:
    return rng.choice(_TICS) * rng.randrange(1, 3)


def _line_of_code(rng: random.Random, words: Sequence[str]) -> str:
    a, b, c, d = (rng.choice(words).lower() for _ in range(4))
    return rng.choice((
        f"def {a}_{b}({c}, {_code(rng, 3)}): return {d}[{rng.randrange(9)}:{rng.randrange(99)}] * {_code(rng, 2)}",
        f"const {a}{b.title()} = ({c}) => {d}.map(x => x.{a}).filter(Boolean);",
        f"SELECT {a}, COUNT(*) FROM {b}s WHERE {c} = '{d}' GROUP BY {a};",  # noqa: S608 - a prompt
        f"{a.title()}{b.title()}Exception: {c} {d} at {a}.{b}({c.title()}.java:{rng.randrange(999)})",
        f"pip install {a}-{b} && {c} --{d} {rng.randrange(99)}",
        f"#include <{a}/{b}.h>\nint {c}(char *{d}) {{ return {rng.randrange(9)}; }}",
    ))  # fmt: skip


def _formula(rng: random.Random, words: Sequence[str]) -> str:
    x, y = rng.choice(string.ascii_lowercase), rng.choice(string.ascii_lowercase)
    return f"${x}^{{{rng.randrange(9)}}} + \\frac{{{y}}}{{{rng.randrange(99)}}} = \\sqrt{{{rng.randrange(999)}}}$"


def _record(rng: random.Random, words: Sequence[str]) -> str:
    values = (rng.randrange(999), _code(rng, 6), None, True, rng.choices(words, k=3), rng.choice(words))
    return json.dumps({rng.choice(words): rng.choice(values) for _ in range(rng.randrange(2, 6))})


def _contact(rng: random.Random, words: Sequence[str]) -> str:
    names = " ".join(rng.choice(words).title() for _ in range(rng.randrange(1, 4)))
    return f"{names} {_code(rng, 4)}@{rng.choice(words)}.com +{rng.randrange(99)} {rng.randrange(10**9)}"


def _slots(rng: random.Random, words: Sequence[str]) -> str:
    return " ".join(rng.choice((rng.choice(_SLOTS), rng.choice(words))) for _ in range(rng.randrange(2, 8)))


def _value(rng: random.Random, words: Sequence[str]) -> str:
    number = rng.choice((str(rng.randrange(1000)), f"{rng.uniform(0, 100):.{rng.randrange(3)}f}"))
    unit = rng.choice((" min", " years", " kg", "%", " cm", f" {rng.choice(words).lower()}", " km/h", " Rs", "°"))
    return rng.choice((
        number, number, number + unit, number + unit, rng.choice("$€£") + number, f"${number}$", f"-{number}",
        f"${rng.choice(string.ascii_lowercase)}={number}$", f"\\frac{{{number}}}{{{rng.randrange(1, 20)}}}",
        " ".join(rng.choices(words, k=rng.randrange(1, 5))), f"{rng.choice(words)} and {rng.choice(words)}",
        f"{number}:{rng.randrange(1, 60):02d}", rng.choice(string.ascii_uppercase),
    ))  # fmt: skip


def _choices(rng: random.Random, words: Sequence[str]) -> str:
    """Choices of an answer, labelled as tests and forms do, of one kind of value each."""
    state, n = rng.getrandbits(64), rng.randrange(2, 7)
    label = rng.choice(("({})", "{}.", "{})", "{}:", "[{}]", "- {}", "Option {}:"))
    names = rng.choice(
        (string.ascii_uppercase, string.ascii_lowercase, "123456", ("i", "ii", "iii", "iv", "v", "vi"))
    )
    between, blank = rng.choice(("\n", "\n", "\n", " ", ", ")), rng.choice(("", " ", " "))
    alike = random.Random()
    values = []
    for _ in range(n):
        alike.seed(state)  # the same choices of style for each: what differs is drawn before
        mixed = [rng.choice(words) for _ in range(8)]
        value = _value(alike, mixed)
        values.append(re.sub(r"\d", lambda _found: str(rng.randrange(10)), value))
    if rng.random() < 0.3:
        values[-1] = rng.choice(("None of these", "None of the above", "All of the above", "Cannot be determined"))
    return between.join(label.format(name) + blank + value for name, value in zip(names, values, strict=False))


def _calls(rng: random.Random, words: Sequence[str]) -> str:
    """Examples of a function, as a docstring or a tutorial has them."""
    name = "_".join(rng.choices(words, k=2)).lower()
    kinds: tuple[Callable[[], object], ...] = (
        lambda: [rng.randrange(99) for _ in range(rng.randrange(5))],
        lambda: rng.choice(words),
        lambda: {rng.choice(words): rng.randrange(9)},
        lambda: ["".join(rng.choices("()[]{} ", k=rng.randrange(1, 9))) for _ in range(rng.randrange(1, 4))],
    )
    given, got = rng.choice(kinds), rng.choice(kinds)
    lead, arrow = rng.choice(
        ((">>> ", "\n"), ("", " => "), ("", " -> "), ("assert ", " == "), ("Input: ", " Output: "))
    )
    return "\n".join(f"{lead}{name}({given()!r}){arrow}{got()!r}" for _ in range(rng.randrange(1, 4)))


def _pairs(rng: random.Random, words: Sequence[str]) -> str:
    """Things that belong together: analogies, translations, definitions."""
    joints = ((" : ", " :: "), (" -> ", "\n"), (" = ", ", "), (": ", "; "), (" - ", "\n"), (" / ", " | "))
    inner, outer = rng.choice(joints)
    return outer.join(inner.join(rng.choices(words, k=2)) for _ in range(rng.randrange(2, 6)))


def _markup(rng: random.Random, words: Sequence[str]) -> str:
    tag, item = rng.choice(words).title(), rng.choice(words).lower()
    return rng.choice((
        f'<{tag} {item}={{{rng.choice(words)}}} label="{rng.choice(words).title()}" size={{{rng.randrange(9)}}} />',
        f'import {{ {tag} }} from "{item}/{rng.choice(words).lower()}"',
        f'{{"role": "user", "content": "{item} {rng.choice(words)}"}}',
        f"\\begin{{{item}}}{{|l|c|}}\n\\hline {tag} & {rng.randrange(99)} \\\\\n\\end{{{item}}}",
        f"[{item}.{rng.choice(words)}][{rng.choice(words)}] = {rng.choice(words)}",
        f'"""\n{{{item}}}\n"""', f"<{item}>{rng.choice(words)}</{item}>",
    ))  # fmt: skip


_ODD = (_choices, _choices, _choices, _choices, _calls, _pairs, _markup, _blob, _url, _log, _keywords, _keywords,
        _numbers, _rows, _identifier, _tic, _line_of_code, _line_of_code, _formula, _record, _contact,
        _slots)  # fmt: skip


def benign(rng: random.Random, carriers: Carriers) -> str:
    """A benign prompt: mostly a natural passage; else two of them, an odd piece, or a rough way of writing."""
    kind, text = rng.random(), carriers.passage()
    between = rng.choice(("\n\n", "\n", " ", " ", ": "))
    if kind < 0.46:
        pass
    elif kind < 0.52:
        code = carriers.code()
        fence = rng.choice(("", "", f"```{rng.choice(('', 'python', 'js'))}\n"))
        text = rng.choice((rng.choice(_OPENINGS), text[:300])) + between + fence + code + ("\n```" if fence else "")
    elif kind < 0.60:
        opening = rng.choice((rng.choice(_OPENINGS), carriers.passage()[: rng.choice((80, 200, 400))]))
        text = opening + between + text
    elif kind < 0.66:
        text = text[:300] + between + carriers.passage()[:200]
    elif kind < 0.75:
        odd = rng.choice(_ODD)(rng, carriers.words)
        text = odd + between + text if rng.random() < 0.4 else text + between + odd
    elif kind < 0.78:
        text = rng.choice(_OPENINGS) + between + rng.choice(_ODD)(rng, carriers.words)
    elif kind < 0.80:
        text = rng.choice(_ODD)(rng, carriers.words)
    elif kind < 0.85:
        text = text.lower()
    elif kind < 0.89:
        text = _typos(rng, text)
    elif kind < 0.93:
        text = rng.choice(_OPENINGS) + " " + text[: rng.randrange(20, 120)].rsplit(" ", 1)[0]
    elif kind < 0.95:
        text = re.sub(r"[^\w\s]", "", text)
    elif kind < 0.96:
        text = text.upper()
    elif kind < 0.98:
        text = text[: rng.randrange(15, 80)]
    else:
        text = text.title() if rng.random() < 0.5 else text.replace(" ", rng.choice(("", "_", "  ")), 3)
    return text[:4000] or "?"


def make(
    n: int, documents: Sequence[Document], attacks: Mapping[str, Attack], seed: int, benign_share: float = 0.5
) -> list[Sample]:
    """Draw `n` samples; attacks by their family's share, a little more often at the end."""
    rng = random.Random(seed)
    carriers = Carriers(documents, rng)
    names = sorted(attacks)
    shares = [_SHARES.get(name, 2) for name in names]
    samples = []
    for _ in range(n):
        if not names or rng.random() < benign_share:
            samples.append(Sample(benign(rng, carriers), "benign", 0, 0))
            continue
        carrier = carriers.passage() if rng.random() < 0.8 else benign(rng, carriers)
        family = rng.choices(names, shares)[0]
        end: End = "prefix" if rng.random() < 0.45 else "suffix"
        text = attacks[family](rng, carrier, end)
        extra = len(text) - len(carrier)
        span = (0, extra) if end == "prefix" else (len(carrier), len(text))
        samples.append(Sample(text, family, *span))
    return samples
