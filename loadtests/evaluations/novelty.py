"""What `novelty` finds of text that no catalogue has: `python -m loadtests.evaluations.novelty`.

On benign prompts of sources that nothing of the model was trained on (`HELD_BACK`), and attacks over carriers of
the same sources: every family of text, made of their own tokens; gadgets grown against routers, which training
never sees; the published suffixes of POINTSMAN_DATA. Intervals are bootstraps over triggers, not over prompts.

With --leave-out each family is left out of training in turn (smaller models, some minutes each): what is reached
on a kind of generator that the model does not know.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from detectors.coverage import wilson
from detectors.evaluation import BATCH, judge
from detectors.novelty import artefact
from detectors.novelty.detector import NoveltyDetector
from detectors.novelty.model import Model
from detectors.novelty.training import fit
from detectors.novelty.training.tagging import ends
from detectors.novelty.training.texts import Document, documents
from detectors.thresholds import Thresholds
from detectors.triggers.grow import SAMPLINGS, grow
from loadtests.attacks.text import COMMON, End, Family, Material, families, glue, printable
from loadtests.prompts import data_dir
from loadtests.router import QUICK, DifficultyRouter
from schemas.verdicts import Reason

# Sources of the benign prompts that `pointsman novelty train` is told to leave out (--without).
HELD_BACK = ("agieval", "arena_hard_v0.1", "headlines", "humaneval", "llmrouter_agentverse-logicgrid",
             "llmrouter_commongen", "llmrouter_gpqa", "mbpp_plus", "mitre_frr", "mt_bench", "self_instruct_seed",
             "xstest_safe")  # fmt: skip
RATES = (0.001, 0.01, 0.05)
USES = 4  # prompts that each trigger is glued to
RESAMPLES = 1000
SMALL = fit.Sizes(tagged=80_000, weighed=60_000, epochs=1.5)


class Attack(NamedTuple):
    """Prompts with one trigger each."""

    family: str
    texts: list[str]


def own_prompts(data: Path) -> tuple[list[Document], list[Document]]:
    """Benign prompts to learn from, and those of the sources held back."""
    rows = fit.read_benign(data / "benign_prompts.jsonl")
    held = {f"own/{source}" for source in HELD_BACK}
    return [row for row in rows if row.group not in held], [row for row in rows if row.group in held]


def of_families(
    made: Mapping[str, Family], carriers: Sequence[str], n: int, rng: random.Random
) -> Iterator[Attack]:
    """`n` triggers of every family and end. A family's trigger is new at each call, so one use each."""
    for name, family in made.items():
        for end in ("prefix", "suffix"):
            for _ in range(n):
                yield Attack(f"{name} ({end})", [family(rng, rng.choice(carriers), end)])


def of_triggers(
    name: str, triggers: Sequence[str], carriers: Sequence[str], rng: random.Random
) -> Iterator[Attack]:
    """Each trigger on `USES` carriers, half before and half after."""
    for trigger in triggers:
        sides: tuple[End, ...] = ("prefix", "suffix") if "grown" in name else ("suffix",)
        yield Attack(
            name, [glue(rng, rng.choice(carriers), sides[use % len(sides)], trigger) for use in range(USES)]
        )


def climb(
    score: Callable[[Sequence[str]], NDArray[Any]], draw: Callable[[int], list[str]], rng: random.Random
) -> str:
    """As `detectors.triggers.grow`, over the tokens of a language model's vocabulary, as drawn."""
    gadget, best, idle = draw(1) * 10, -1.0, 0
    for _ in range(100):
        place = rng.randrange(10)
        tries = [[*gadget[:place], token, *gadget[place + 1 :]] for token in draw(32)]
        scores = score(["".join(tried) for tried in tries])
        top = int(scores.argmax())
        idle += 1
        if scores[top] > best:
            gadget, best, idle = tries[top], float(scores[top]), 0
        if idle == 25:
            break
    return "".join(gadget).strip()


def grown(n: int, material: Material, rng: random.Random) -> Iterator[tuple[str, list[str]]]:
    """`n` gadgets by each vocabulary and sampling, against each kind of router that is quick to train."""
    samplings: dict[str, Callable[[int], list[str]]] = {
        "uniform": lambda k: rng.choices(printable(), k=k),
        "frequency": lambda k: material.draw(rng, k),
        "wordlike": lambda k: material.draw(rng, k, without=COMMON),
    }
    for kind in QUICK:
        router = DifficultyRouter.load(kind)
        for name, draw in samplings.items():
            yield f"grown on {kind}, cl100k, {name}", [climb(router.score, draw, rng) for _ in range(n)]
        for sampling in SAMPLINGS:
            gadgets = [grow(router.score, sampling, tokens=10, seed=seed).text for seed in range(n)]
            yield f"grown on {kind}, folded, {sampling}", gadgets


def published(data: Path) -> list[str]:
    """The published GCG suffixes, each once."""
    with (data / "attack_strings.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return sorted({row["text"] for row in rows if row["kind"] == "gcg_suffix"})


def recalls(
    attacks: Sequence[Attack], scores: NDArray[np.float64], benign: NDArray[np.float64], rng: np.random.Generator
) -> dict[str, dict[str, Any]]:
    """Recall by family and rate of false positives, each with a 95 % bootstrap interval over triggers."""
    levels = {rate: np.quantile(benign, 1 - rate, method="higher") for rate in RATES}
    at, by_family = 0, {}  # type: tuple[int, dict[str, list[NDArray[np.float64]]]]
    for attack in attacks:
        by_family.setdefault(attack.family, []).append(scores[at : at + len(attack.texts)])
        at += len(attack.texts)
    report = {}
    for family, triggers in by_family.items():
        found = {"triggers": len(triggers)}
        for rate, level in levels.items():
            shares = np.array([(scored > level).mean() for scored in triggers])
            means = shares[rng.integers(len(shares), size=(RESAMPLES, len(shares)))].mean(axis=1)
            low, high = np.quantile(means, (0.025, 0.975))
            found[str(rate)] = [round(float(value), 4) for value in (shares.mean(), low, high)]  # type: ignore[assignment]
        report[family] = found
    return report


def judged(model: Model, attacks: Sequence[Attack]) -> NDArray[np.float64]:
    """Log odds of all texts, in order."""
    texts = [text for attack in attacks for text in attack.texts]
    scores = [model.log_odds(*ends(texts[at : at + BATCH])) for at in range(0, len(texts), BATCH)]
    return np.concatenate(scores).astype(np.float64)


def flags(path: Path, held: Sequence[Document]) -> tuple[dict[str, Any], float]:
    """Benign prompts flagged at the shipped thresholds, by source, and µs of CPU a prompt."""
    detector = NoveltyDetector(Thresholds(), path)
    answers, seconds = judge([detector], [row.text for row in held])
    flagged = np.array([isinstance(answer, Reason) and answer.flagged for answer in answers[detector.name]])
    prior = np.array([isinstance(answer, Reason) for answer in answers[detector.name]])
    groups = np.array([row.group.removeprefix("own/") for row in held])
    interval = wilson(int(flagged.sum()), len(held), z=1.96)
    by_source = {
        name: [int((groups == name).sum()), int(flagged[groups == name].sum()), int(prior[groups == name].sum())]
        for name in sorted(set(groups.tolist()))
    }
    about = {
        "n": len(held),
        "flagged": int(flagged.sum()),
        "flagged_at_most": round(interval.high, 5),
        "prior": int(prior.sum()),
        "by_source": by_source,
    }
    return about, seconds / len(held) * 1e6


def left_out(
    corpora: Sequence[Path], own: Sequence[Document], carriers: Sequence[str], n: int, seed: int
) -> dict[str, Any]:
    """Recall on each family by a model that was trained without it."""
    parts = fit.split([*documents(corpora, seed), *own])
    base = fit.learn_language(parts.counted, seed)
    attacks = fit.SplitAttacks(*(families([document.text for document in part]) for part in parts[1:]))
    report = {}
    for name in attacks.held:
        known = fit.SplitAttacks(*({kind: make for kind, make in made.items() if kind != name} for made in attacks))
        model = fit.fit_model(base, parts, known, SMALL, seed)
        unknown = list(of_families({name: families(carriers)[name]}, carriers, n, random.Random(seed)))
        benign = judged(model, [Attack("", [text]) for text in carriers])
        report[name] = recalls(unknown, judged(model, unknown), benign, np.random.default_rng(seed))
        click.echo(f"without {name}: {json.dumps(report[name])}", err=True)
    return report


@click.command()
@click.option("--artefact", "path", type=click.Path(exists=True, path_type=Path), default=artefact.PATH)
@click.option("--triggers", default=400, show_default=True, help="Of each family and end.")
@click.option("--grown", "n_grown", default=30, show_default=True, help="Gadgets of each router and sampling.")
@click.option("--leave-out", is_flag=True, help="Train without each family in turn instead.")
@click.option("--corpus", "corpora", type=click.Path(exists=True, file_okay=False, path_type=Path), multiple=True)
@click.option("--seed", default=5, show_default=True)
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here.")
def main(
    path: Path, triggers: int, n_grown: int, leave_out: bool, corpora: tuple[Path, ...], seed: int, out: Path | None
) -> None:
    """Evaluate the artefact, or the recipe without each family of attacks."""
    data = data_dir()
    if data is None:
        raise click.ClickException("needs POINTSMAN_DATA")
    own, held = own_prompts(data)
    carriers = [row.text for row in held]
    if leave_out:
        report = left_out(corpora, own, carriers, triggers, seed)
    else:
        rng = random.Random(seed)
        attacks = list(of_families(families(carriers), carriers, triggers, rng))
        attacks += of_triggers("published GCG", published(data), carriers, rng)
        for name, gadgets in grown(n_grown, Material(carriers), rng):
            attacks += of_triggers(name, gadgets, carriers, rng)
        model, _, _ = artefact.load(path)
        benign = judged(model, [Attack("", [text]) for text in carriers])
        report = {"families": recalls(attacks, judged(model, attacks), benign, np.random.default_rng(seed))}
        report["benign"], report["us_per_prompt"] = flags(path, held)
    text = json.dumps(report, indent=1)
    if out:
        out.write_text(text + "\n", encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
