"""Triggers that no catalogue has, in one prompt: by `novelty`, and by all prompt detectors together.

Benign prompts, and the carriers of attacks, are of sources on which nothing was trained (`benign.HELD_BACK`); no
generator of attacks is among those that training has (loadtests/attacks/text.py). Most are of a *kind* that
training knows; `--leave-out` leaves each kind out of a smaller training in turn: what is reached on a kind that
the model does not know. `python -m loadtests.evaluations --part novelty`.
"""

import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.catalogue import shipped
from detectors.contract import PromptDetector
from detectors.evaluation import RATES, Judged, Labelled, judge_all
from detectors.novelty import artefact
from detectors.novelty.training import fit
from detectors.novelty.training.samples import Attack
from detectors.novelty.training.tagging import ends
from detectors.novelty.training.texts import Document, documents, without
from detectors.triggers.grow import Direction
from loadtests.attacks import climbs, phrases, unseen
from loadtests.attacks.mutations import MUTATIONS, as_prefix, as_suffix, inside
from loadtests.attacks.text import Material, families
from loadtests.evaluations.benign import HELD_BACK, Benign, held_back, prompts
from loadtests.evaluations.shares import Share, of_counts, over_triggers
from loadtests.evaluations.triggers import published
from loadtests.router import DifficultyRouter, Kind

USES = 4  # prompts that each trigger is glued to
DIRECTIONS: tuple[Direction, ...] = ("up", "down")
SMALL = fit.Sizes(tagged=40_000, weighed=30_000, epochs=1.5)
NOTHING = "nothing"
ALL, NOVELTY = "all detectors", "novelty"
MIDDLE = "gadgets, wordlike, in the middle"
LEAST_CHARS = 20  # of a published suffix: a few in the list are one word, which is none

# Kind -> the families of training that are of it.
KINDS = {
    "tokens": ("uniform_tokens", "frequent_tokens", "rare_words", "one_topic", "repeated_tokens", "walked_tokens"),
    "GCG": ("gcg_like",),
    "fragments": ("glued_fragments",),
    "words": ("dictionary_words",),
    "chunks": ("chunk_salad",),
    "shuffled": ("shuffled_sentences",),
    "interleaved": ("interleaved",),
}


class Trigger(NamedTuple):
    """A trigger; `kind` is one of `KINDS`, or what training has nothing of."""

    family: str
    kind: str
    text: str
    router: str = ""
    direction: str = ""


class Recall(msgspec.Struct):
    """Shares of uses found, by rate of false positives on the benign prompts."""

    kind: str
    by_rate: dict[str, Share]


class Report(msgspec.Struct):
    """By detector, then by family, by router and by direction of the climbed triggers."""

    families: dict[str, dict[str, Recall]]
    routers: dict[str, dict[str, Recall]]
    directions: dict[str, dict[str, Recall]]
    flagged: dict[str, Share]  # by family, at the shipped thresholds
    benign: dict[str, Share]  # flagged of benign prompts, by source, `borderline` and `all`
    us_per_prompt: float  # of these prompts, which are longer than 400 characters in part
    left_out: dict[str, dict[str, Recall]] = {}  # by kind that training was without


def climbed(each: int, texts: Sequence[str], routers: Sequence[Kind], rng: random.Random) -> Iterator[Trigger]:
    """`each` of every router, direction and way to climb."""
    material = Material(texts)
    for kind in routers:
        score = DifficultyRouter.load(kind).score
        for direction in DIRECTIONS:
            for _ in range(each):
                for sampling in climbs.SAMPLINGS:
                    made = climbs.gadget(score, material, rng, sampling, direction)
                    yield Trigger(f"gadgets, {sampling}", "tokens", made, kind, direction)
                    made = climbs.suffix(score, material, rng, sampling, direction)
                    yield Trigger(f"suffixes, {sampling}", "tokens", made, kind, direction)
                yield Trigger("GCG, by queries", "GCG", climbs.coordinates(score, rng, direction), kind, direction)
                made = phrases.phrase(score, rng, direction)
                yield Trigger("fluent phrases", "fluent", made, kind, direction)


_KIND_OF = {"chunk salad": "chunks", "shuffled sentence": "shuffled", "dictionary words": "words",
            "R2A-like": "fragments", "interleaved sentences": "interleaved"}  # fmt: skip


def drawn(each: int, texts: Sequence[str], rng: random.Random) -> Iterator[Trigger]:
    """`each` of every generator that needs no router."""
    for name, make in unseen.GENERATORS.items():
        for _ in range(each):
            yield Trigger(name, _KIND_OF[name], make(rng, texts))


def known(each: int, words: Sequence[str], rng: random.Random) -> Iterator[Trigger]:
    """Entries of the shipped catalogue under the mutations that a matcher is to stand: what `triggers` adds."""
    entries = [entry.text for entry in shipped().triggers]
    for name in ("exact", "look_alike", "no_spaces", "replaced_30"):
        for _ in range(each):
            yield Trigger(f"catalogued, {name}", "catalogued", MUTATIONS[name](rng.choice(entries), rng, words))


def used(
    triggers: Sequence[Trigger], carriers: Sequence[str], rng: random.Random
) -> Iterator[tuple[int, Labelled]]:
    """Each on `USES` carriers, before and after in turns; climbed suffixes and GCG only after."""
    for number, trigger in enumerate(triggers):
        after = trigger.kind == "GCG" or trigger.family.startswith("suffixes")
        for use in range(USES):
            place = as_suffix if after or use % 2 else as_prefix
            yield number, Labelled(trigger.family, place(trigger.text, rng.choice(carriers)), True)
    for number, trigger in enumerate(triggers):
        if trigger.family == "gadgets, wordlike":
            text = inside(trigger.text, rng.choice(carriers))
            yield number, Labelled(MIDDLE, text, True)


def _levels(score: NDArray[np.float64], benign: NDArray[np.bool_]) -> dict[str, float]:
    return {str(rate): float(np.quantile(score[benign], 1 - rate, method="higher")) for rate in RATES}


def _recalls(
    score: NDArray[np.float64], levels: Mapping[str, float], groups: NDArray[np.object_],
    trigger: NDArray[np.int64], kind_of: Mapping[str, str],
) -> dict[str, Recall]:  # fmt: skip
    found = {}
    for group in sorted(set(groups) - {""}):
        chosen = groups == group
        by_rate = {rate: over_triggers(score[chosen] > level, trigger[chosen]) for rate, level in levels.items()}
        found[group] = Recall(kind_of.get(group, ""), by_rate)
    return found


def _flagged(
    judged: Judged, held: Sequence[Benign], groups: NDArray[np.object_], trigger: NDArray[np.int64]
) -> tuple[dict[str, Share], dict[str, Share]]:
    flags = judged.flagged()
    benign, attacks = flags[: len(held)], flags[len(held) :]
    sources = np.array([row.source for row in held])
    by_source = {
        name: of_counts(int(benign[sources == name].sum()), int((sources == name).sum()))
        for name in sorted(set(sources.tolist()))
    }
    borderline = np.array([row.borderline for row in held])
    by_source["borderline"] = of_counts(int(benign[borderline].sum()), int(borderline.sum()))
    by_source["all"] = of_counts(int(benign.sum()), len(held))
    by_family = {
        name: over_triggers(attacks[groups == name], trigger[groups == name]) for name in sorted(set(groups))
    }
    return by_family, by_source


def triggers_for(data: Path, each: int, routers: Sequence[Kind], rng: random.Random) -> list[Trigger]:
    """All triggers of one evaluation, over the texts of sources held back."""
    texts = [row.text for row in held_back(data)]
    words = sorted({word for text in texts[:500] for word in text.split() if word.isalpha()})
    made = [*climbed(each, texts, routers, rng), *drawn(10 * each, texts, rng), *known(10 * each, words, rng)]
    suffixes = [text for text in published(data, "gcg_suffix") if len(text) >= LEAST_CHARS]
    return made + [Trigger("GCG, published", "GCG", text) for text in suffixes]


def measure(data: Path, detectors: Sequence[PromptDetector], triggers: Sequence[Trigger], seed: int = 0) -> Report:
    """Judge the benign prompts and all uses of the triggers."""
    held = held_back(data)
    uses = list(used(triggers, [row.text for row in held], random.Random(seed)))
    benign = [Labelled("", row.text, False) for row in held]
    judged = judge_all(detectors, [*benign, *(case for _, case in uses)])
    number = np.array([number for number, _ in uses])
    family = np.array([case.family for _, case in uses], np.object_)
    router = np.array([triggers[i].router for i in number], np.object_)
    direction = np.array([triggers[i].direction for i in number], np.object_)
    kind_of = {trigger.family: trigger.kind for trigger in triggers} | {MIDDLE: "tokens"}
    apart = (family == MIDDLE) | (family == "fluent phrases")  # which would blur what routers do to gadgets
    router[apart], direction[apart] = "", ""
    scores = {NOVELTY: judged.columns["novelty"].strength, ALL: judged.combined()}
    report = Report({}, {}, {}, {}, {}, judged.seconds / len(judged.attack) * 1e6)
    for name, score in scores.items():
        levels, attacked = _levels(score, ~judged.attack), score[len(held) :]
        report.families[name] = _recalls(attacked, levels, family, number, kind_of)
        report.routers[name] = _recalls(attacked, levels, router, number, {})
        report.directions[name] = _recalls(attacked, levels, direction, number, {})
    report.flagged, report.benign = _flagged(judged, held, family, number)
    return report


def left_out(
    data: Path, corpora: Sequence[Path], triggers: Sequence[Trigger], kinds: Sequence[str], seed: int = 0
) -> Iterator[tuple[str, dict[str, Recall]]]:
    """Recall on each kind by a smaller model (the shipped one's language) that was trained without it.

    It is trained on texts that the shipped language has not counted: what that keeps for its scale, and prompts.
    `NOTHING` as a kind leaves nothing out: what so small a model reaches on every kind that it knows.
    """
    carriers = [row.text for row in held_back(data)]
    own = [Document("own", f"own/{row.source}", row.text) for row in prompts(data) if row.source not in HELD_BACK]
    parts = fit.split(without([*documents(corpora, seed), *own], carriers))
    strangers = fit.Split([], [], parts.held)
    for document in (*parts.held, *own):
        strangers[zlib.crc32(b"half " + document.group.encode("utf-8", "replace")) % 2].append(document)
    base = artefact.load()[0].parts.base
    language = fit.Language(base, (base,) * fit.FOLDS)
    made = fit.split_attacks(families, strangers, seed)
    for kind in kinds:
        gone = KINDS.get(kind, ())

        def kept(family: Mapping[str, Attack], gone: Sequence[str] = gone) -> dict[str, Attack]:
            return {name: attack for name, attack in family.items() if name not in gone}

        attacks = fit.SplitAttacks(list(map(kept, made.tagged)), list(map(kept, made.weighed)), kept(made.held))
        model = fit.fit_model(language, strangers, attacks, SMALL, seed)
        tried = [trigger for trigger in triggers if trigger.kind == kind or (not gone and trigger.kind in KINDS)]
        uses = list(used(tried, carriers, random.Random(seed)))
        ordinary = model.log_odds(*ends(carriers)).astype(np.float64)
        score = model.log_odds(*ends([case.text for _, case in uses])).astype(np.float64)
        levels = _levels(ordinary, np.ones(len(ordinary), np.bool_))
        number, family = np.array([n for n, _ in uses]), np.array([case.family for _, case in uses], np.object_)
        yield kind, _recalls(score, levels, family, number, {trigger.family: trigger.kind for trigger in tried})
