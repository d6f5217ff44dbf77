"""What an attacker does to a known trigger so that it is not recognised, while a router still feels it."""

import random
from collections.abc import Callable, Sequence
from types import MappingProxyType

_CYRILLIC = str.maketrans("aceopxyijsABCEHKMOPTX", "асеорхуіјѕАВСЕНКМОРТХ")
_LEET = str.maketrans("oieastOIEAST", "013457013457")
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"

Mutation = Callable[[str, random.Random, Sequence[str]], str]


def _exact(trigger: str, rng: random.Random, words: Sequence[str]) -> str:
    return trigger


def _case(trigger: str, rng: random.Random, words: Sequence[str]) -> str:
    return "".join(c.upper() if rng.random() < 0.5 else c.lower() for c in trigger)


def _zero_width(trigger: str, rng: random.Random, words: Sequence[str]) -> str:
    return "".join(c + rng.choice(_INVISIBLE) if rng.random() < 0.4 else c for c in trigger)


def _look_alike(trigger: str, rng: random.Random, words: Sequence[str]) -> str:
    return "".join(c.translate(_CYRILLIC) if rng.random() < 0.5 else c for c in trigger)


def _leet(trigger: str, rng: random.Random, words: Sequence[str]) -> str:
    return trigger.translate(_LEET)


def _no_spaces(trigger: str, rng: random.Random, words: Sequence[str]) -> str:
    return trigger.replace(" ", "")


def _shuffled(trigger: str, rng: random.Random, words: Sequence[str]) -> str:
    parts = trigger.split(" ")
    rng.shuffle(parts)
    return " ".join(parts)


def _inserted(trigger: str, rng: random.Random, words: Sequence[str]) -> str:
    parts = trigger.split(" ")
    parts.insert(rng.randrange(len(parts) + 1), rng.choice(words))
    return " ".join(parts)


def _replaced(share: float) -> Mutation:
    def replace(trigger: str, rng: random.Random, words: Sequence[str]) -> str:
        parts = trigger.split(" ")
        for i in rng.sample(range(len(parts)), round(share * len(parts))):
            parts[i] = rng.choice(words)
        return " ".join(parts)

    return replace


# name -> mutation(trigger, rng, words to insert or replace with)
MUTATIONS = MappingProxyType(
    {
        "exact": _exact,
        "case": _case,
        "zero_width": _zero_width,
        "look_alike": _look_alike,
        "leet": _leet,
        "no_spaces": _no_spaces,
        "shuffled": _shuffled,
        "inserted": _inserted,
        "replaced_10": _replaced(0.1),
        "replaced_20": _replaced(0.2),
        "replaced_30": _replaced(0.3),
        "replaced_50": _replaced(0.5),
    }
)


def as_prefix(trigger: str, prompt: str) -> str:
    """The trigger before the prompt."""
    return f"{trigger} {prompt}"


def as_suffix(trigger: str, prompt: str) -> str:
    """The trigger after the prompt."""
    return f"{prompt} {trigger}"


def glued(trigger: str, prompt: str) -> str:
    """The trigger before the prompt without a space between them."""
    return trigger + prompt


def after_system_text(trigger: str, prompt: str) -> str:
    """The trigger where a gateway puts a user's text: after a system text."""
    return (
        f"You are a helpful assistant of Example Ltd. Answer briefly, in the user's language.\n\n{trigger} {prompt}"
    )


def split_between_ends(trigger: str, prompt: str) -> str:
    """The first half of the trigger before the prompt, the second half after it."""
    parts = trigger.split(" ")
    half = len(parts) // 2
    return f"{' '.join(parts[:half])} {prompt} {' '.join(parts[half:])}"


def inside(trigger: str, prompt: str) -> str:
    """The trigger between two words in the middle of the prompt."""
    parts = prompt.split(" ")
    half = len(parts) // 2
    return " ".join([*parts[:half], trigger, *parts[half:]])


PLACEMENTS = MappingProxyType(
    {
        "prefix": as_prefix,
        "suffix": as_suffix,
        "glued": glued,
        "after_system_text": after_system_text,
        "split_between_ends": split_between_ends,
        "inside": inside,
    }
)
