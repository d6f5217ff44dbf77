"""How `discovery` does on whole days: `python -m loadtests.evaluations.discovery` prints its page's tables.

A day is a fleet's traffic of real prompts with callers' templates, retries and edits, a sixth of it by tenants that
begin in the middle of the day, and campaigns whose gadgets were grown against the router that the day's scores
come from. Both levels run as in the service, in process; the transplants ask the router itself.
"""

import faulthandler
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import click
import msgspec
import numpy as np
import numpy.typing as npt

from detectors.contract import Answer, Case, PromptFacts
from detectors.detections import shipped
from detectors.discovery import Discovery, kernel
from detectors.discovery.transplant import Probes, answer, shipped_probes
from detectors.discovery.windows import bucket_bits, pack_windows
from detectors.fleet import FleetPartition
from detectors.spans import token_places
from detectors.text import read_texts
from detectors.thresholds import Thresholds
from detectors.triggers.grow import SAMPLINGS, Direction, grow
from loadtests.attacks.mutations import MUTATIONS, as_prefix, as_suffix
from loadtests.fleet import Ask, Fleet, Principal
from loadtests.prompts import data_dir, words
from loadtests.router import DifficultyRouter, Kind
from schemas.codec import encode
from schemas.events import Request, Route
from schemas.topics import FINDINGS
from schemas.verdicts import Finding, Reason
from streams.replay import FileRecord

Score = Callable[[Sequence[str]], npt.NDArray[np.float64]]
# "mixed": the mean of one that is linear and one that is not. None is `neighbours`: no gadget lifts it far enough.
ROUTERS = ("words", "chars", "static", "mixed")
KINDS = ("prefix", "suffix", "mutated", "middle")
CALM = 0.25  # of the day, before the first campaign
USES = 30  # of a campaign
CALLERS = 6
MOST_GROWN = 40  # gadgets tried for one that moves a router enough: one that cannot be moved so far ends the run
STUCK_S = 1_800  # a day that takes longer tells where it is
LEAST_LIFT = 1.2  # standard deviations: what a campaign's gadget does at least to a prompt's score
NEWCOMERS = 1 / 6  # of the traffic of the second half
CHUNK = 4_096


class Planted(NamedTuple):
    """A campaign: where its gadget stands, which way it pushes, how far, and the gadget."""

    kind: str
    direction: Direction
    lift: float
    gadget: str


@dataclass(frozen=True)
class Day:
    """Requests in order; `campaign` is -1 for ordinary ones."""

    asks: list[Ask]
    campaign: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    planted: list[Planted]


def scorer(name: str) -> Score:
    """The router's scores, in chunks."""
    kinds: tuple[Kind, ...] = ("words", "static") if name == "mixed" else (name,)  # type: ignore[assignment]
    routers = [DifficultyRouter.load(kind) for kind in kinds]

    def score(texts: Sequence[str]) -> npt.NDArray[np.float64]:
        parts = [texts[at : at + CHUNK] for at in range(0, len(texts), CHUNK)]
        scores: npt.NDArray[np.float64] = np.concatenate(
            [np.mean([router.score(part) for router in routers], axis=0) for part in parts]
        )
        return scores

    return score


def _inside(gadget: str, prompt: str) -> str:
    parts = prompt.split(" ")
    half = len(parts) // 2
    return " ".join([*parts[:half], gadget, *parts[half:]])


def plant(score: Score, fleet: Fleet, each: int, rng: random.Random, kinds: Sequence[str] = KINDS) -> list[Planted]:
    """`each` campaigns of every kind, a quarter of them downwards, with gadgets that move the router enough.

    Raises:
        RuntimeError: the router is hardly ever moved so far.
    """
    bodies = [prompt.text for prompt in fleet.bodies(rng, 200)]
    plain = score(bodies)
    spread = float(plain.std())
    planted: list[Planted] = []
    for kind in kinds:
        found = 0
        for _ in range(MOST_GROWN * each):
            if found == each:
                break
            direction: Direction = "down" if rng.random() < 0.25 else "up"
            grown = grow(score, rng.choice(SAMPLINGS), direction, 10, rng.getrandbits(32))
            place = _place(kind, rng)
            shift = score([place(grown.text, body) for body in bodies]) - plain
            lift = float(shift.mean()) / spread * (1 if direction == "up" else -1)
            if lift >= LEAST_LIFT:
                found += 1
                planted.append(Planted(kind, direction, lift, grown.text))
        if found < each:
            raise RuntimeError(f"{kind}: of {MOST_GROWN * each} gadgets {found} lift by {LEAST_LIFT} or more")
    return planted


def _place(kind: str, rng: random.Random) -> Callable[[str, str], str]:
    if kind == "middle":
        return _inside
    if kind == "mutated":
        return rng.choice((as_prefix, as_suffix))
    return as_prefix if kind == "prefix" else as_suffix


def make_day(name: str, seed: int, requests: int, each: int, kinds: Sequence[str] = KINDS) -> Day:
    """A day of the router called `name`: the same arguments give the same day."""
    rng = random.Random(f"discovery/{seed}")
    score, data = scorer(name), data_dir()
    fleet = Fleet(seed, data, principals=max(200, requests // 250), tenants=50)
    newcomers = Fleet(seed + 500_000, data, principals=max(40, requests // 1250), tenants=10)
    late = round(requests * NEWCOMERS / 2)
    asks = fleet.asks(requests - late, 100.0)
    end = asks[-1].at
    fresh = newcomers.asks(late, 100.0)
    for ask in fresh:
        ask.at = end / 2 * (1 + ask.at / fresh[-1].at)
    planted = plant(score, fleet, each, rng, kinds)
    vocabulary = words(data)
    for number, campaign in enumerate(planted):
        callers = fleet.turn(rng, CALLERS) if len(fleet.principals) > 12 * len(planted) else _any(fleet, rng)
        place = _place(campaign.kind, rng)
        times = sorted(rng.uniform(CALM * end, end) for _ in range(USES))
        for use, (at, body) in enumerate(zip(times, fleet.bodies(rng, USES), strict=True)):
            mutation = MUTATIONS["replaced_20" if campaign.kind == "mutated" else "exact"]
            text = place(mutation(campaign.gadget, rng, vocabulary), body.text)
            asks.append(Ask(at, callers[use % CALLERS], text, "", 0, 0, 0, attack=str(number)))
    asks = sorted([*asks, *fresh], key=lambda ask: ask.at)
    texts = list(dict.fromkeys(ask.text for ask in asks))
    known = dict(zip(texts, score(texts).tolist(), strict=True))
    return Day(
        asks,
        np.array([int(ask.attack or -1) for ask in asks]),
        np.array([known[ask.text] for ask in asks]),
        planted,
    )


def _any(fleet: Fleet, rng: random.Random) -> list[Principal]:
    return rng.sample(fleet.principals, CALLERS)


# --- the two levels on a day

_NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
_START = 1_790_000_000
BATCH = 1_000
SOON = 20  # uses within which a campaign should be named


class _Counted:
    """A `RouterScorer` in process that counts what it is asked."""

    def __init__(self, name: str) -> None:
        self._score = scorer(name)
        self.asked = 0

    def score(self, texts: Sequence[str]) -> Sequence[float]:
        """The router's scores."""
        self.asked += len(texts)
        scores: list[float] = self._score(texts).tolist()
        return scores


class Named(NamedTuple):
    """A name: its kind, its note, and the numbers of the requests that it was given for."""

    kind: str
    note: str
    uses: tuple[int, ...]


@dataclass
class Outcome:
    """What came of a day."""

    requests: int = 0
    named_after: dict[int, int] = field(default_factory=dict)  # campaign -> its uses until it was named
    false: list[str] = field(default_factory=list)  # notes of what was named and is no campaign
    usual: int = 0
    candidates: int = 0
    asked: int = 0  # queries to the router
    pack_s: float = 0.0  # CPU of the prompt stage's part
    judge_s: float = 0.0  # CPU of the detect lane's part
    add_s: float = 0.0  # CPU of the fleet lane's part, the alerting's in it, without the router's
    state_bytes: int = 0


def play(day: Day, name: str, partitions: int = 1, transplants: bool = True) -> Outcome:
    """Run a day through `partitions` detect lanes, by principal, and one partition of the fleet lane."""
    thresholds, router = Thresholds(), _Counted(name)
    detect = [Discovery(thresholds) for _ in range(partitions)]
    fleet = _Fleet(thresholds, Probes(router, shipped_probes()) if transplants else None)
    told, used = Outcome(requests=len(day.asks)), Counter[int]()
    kernels_ready(thresholds)
    for begin in range(0, len(day.asks), BATCH):
        asks = day.asks[begin : begin + BATCH]
        batch = read_texts([ask.text for ask in asks])
        began = time.process_time()
        packed = pack_windows(batch, with_text=transplants)
        told.pack_s += time.process_time() - began
        cases = [
            _case(i, ask, windows, float(day.scores[i]))
            for i, (ask, windows) in enumerate(zip(asks, packed, strict=True), begin)
        ]
        detectors = [detect[hash_of(ask.principal.hash) % partitions] for ask in asks]
        began = time.process_time()  # once a batch: the clock itself takes as long as a tenth of a request
        said = [_said(detector, case) for detector, case in zip(detectors, cases, strict=True)]
        told.judge_s += time.process_time() - began
        for i, (case, judged) in enumerate(zip(cases, said, strict=True), begin):
            campaign = int(day.campaign[i])
            used[campaign] += campaign >= 0
            if isinstance(judged, Reason):
                told.candidates += 1
                for named in fleet.take(judged, case):
                    _count(told, day, named, used)
    told.asked = router.asked
    told.add_s = fleet.cpu_s
    told.state_bytes = sum(detector.nbytes for detector in detect)
    return told


def _said(detector: Discovery, case: Case) -> Answer:
    said = detector.score(case)
    detector.learn(case, flagged=False)
    return said


def _count(told: Outcome, day: Day, named: Named, used: Counter[int]) -> None:
    """Count a name for the campaign that most of its uses are of; -1: ordinary requests."""
    ((owner, _),) = Counter(day.campaign[list(named.uses)].tolist()).most_common(1)
    if named.kind == "usual_window":
        told.usual += 1
    elif owner >= 0:
        told.named_after.setdefault(owner, used[owner])
    else:
        told.false.append(named.note)


def hash_of(principal: str) -> int:
    """As a partitioner would: the same in every process."""
    return int.from_bytes(principal.encode()[-4:], "little")


def kernels_ready(thresholds: Thresholds) -> None:
    """Compile what is compiled at the first call, so that it is not measured."""
    detector = Discovery(thresholds, windows=64)
    for packed in pack_windows(read_texts(["some words that are there for the compiler alone"])):
        case = Case(time=0.0, request=_request(0, "p", "t"), route=None, prompt=PromptFacts(windows=packed))
        _said(detector, case)
    token_places("some words")
    scratch, out = np.zeros((kernel.SCRATCH, kernel.MOST_TOKENS), np.int64), np.zeros(kernel.OUT, np.int64)
    kernel.rarest_outside(np.zeros(3, np.uint16), scratch, bucket_bits(), out, np.zeros(1, np.uint16))


def _request(number: int, principal: str, tenant: str) -> Request:
    ids: dict[str, Any] = {"event_id": str(number), "request_id": str(number), "event_time": _NOON}
    return Request(**ids, tenant_id=tenant, principal_hash=principal)


def _case(number: int, ask: Ask, windows: bytes, score: float) -> Case:
    request = _request(number, ask.principal.hash, ask.principal.tenant)
    route = Route(
        event_id=str(number), request_id=str(number), event_time=_NOON, tenant_id=request.tenant_id,
        principal_hash=request.principal_hash, selected_model="m", router_name="r", router_version="1",
        difficulty_score=score,
    )  # fmt: skip
    return Case(time=_START + ask.at, request=request, route=route, prompt=PromptFacts(windows=windows))


class _Fleet:
    """A partition of the fleet lane whose transplants are answered at once."""

    def __init__(self, thresholds: Thresholds, probes: Probes | None) -> None:
        self._part = FleetPartition.build(shipped(), thresholds, transplants=probes is not None)
        self._probes = probes
        self._offset = 0
        self._named: set[str] = set()
        self.cpu_s = 0.0

    def take(self, reason: Reason, case: Case) -> Iterator[Named]:
        """Take a candidate; what is named by it."""
        finding = Finding(
            finding_id=case.request.event_id, kind=reason.kind, category="cost_escalation", severity="info",
            time=_NOON, labels={}, detector=reason.detector, detector_version=reason.detector_version,
            tenant_id=case.request.tenant_id, principal_hash=case.request.principal_hash,
            request_id=case.request.request_id, score=reason.score, direction=reason.direction,
            window=reason.window, use=reason.use,
        )  # fmt: skip
        yield from self._apply(finding, round(case.time * 1000))

    def _apply(self, finding: Finding, time_ms: int) -> Iterator[Named]:
        record = FileRecord(FINDINGS.name, self._offset, time_ms, encode(finding))
        began = time.process_time()
        outputs = self._part.apply([record])
        self.cpu_s += time.process_time() - began
        self._offset += 1
        told = [msgspec.json.decode(o.value, type=Finding) for o in outputs if o.topic == FINDINGS.name]
        said = defaultdict(list)
        for one in told:
            if one.transplant is not None and not one.transplant.is_answer and self._probes is not None:
                one.transplant = answer(self._probes, one.transplant)
                yield from self._apply(one, time_ms)
            elif one.use is None and not one.campaign and one.window not in self._named:
                said[one.window].append(one)
        for window, uses in said.items():
            self._named.add(window)
            yield Named(uses[-1].kind, uses[-1].note, tuple(int(use.request_id) for use in uses))


# --- the tables


class Tally(NamedTuple):
    """Campaigns of one kind: named within `SOON` uses, named at all, planted."""

    soon: int
    named: int
    planted: int


def tally(day: Day, told: Outcome) -> dict[str, Tally]:
    """By kind of campaign."""
    found = {}
    for kind in dict.fromkeys(campaign.kind for campaign in day.planted):
        after = [told.named_after.get(n) for n, campaign in enumerate(day.planted) if campaign.kind == kind]
        named = [uses for uses in after if uses is not None]
        found[kind] = Tally(sum(uses <= SOON for uses in named), len(named), len(after))
    return found


@click.command()
@click.option("--requests", default=100_000, show_default=True, help="Ordinary requests of a day.")
@click.option("--each", default=4, show_default=True, help="Campaigns of each kind.")
@click.option("--seed", "seeds", multiple=True, default=(11, 12, 13), help="Thresholds were set on seeds 1 to 4.")
@click.option("--router", "names", multiple=True, default=ROUTERS, help="They were set on words and static.")
@click.option("--kind", "kinds", multiple=True, default=KINDS, type=click.Choice(KINDS), help="Of campaigns.")
@click.option("--partitions", default=1, show_default=True)
@click.option("--transplants/--residuals", default=True, help="Ask the router, or test the residuals alone.")
def main(
    requests: int,
    each: int,
    seeds: Sequence[int],
    names: Sequence[str],
    kinds: Sequence[str],
    partitions: int,
    transplants: bool,
) -> None:
    """Print the table of docs/detectors/discovery.md; one row a day."""
    titles = (
        "router",
        "seed",
        *KINDS,
        "false",
        "usual",
        "queries",
        "candidates",
        "us a request",
        "us a candidate",
        "state",
    )
    click.echo(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for name in names:
        for seed in seeds:
            faulthandler.dump_traceback_later(STUCK_S, repeat=True)
            day = make_day(name, seed, requests, each, kinds)
            told = play(day, name, partitions, transplants)
            named = [f"{t.soon} / {t.named} / {t.planted}" for t in tally(day, told).values()]
            cells = (
                name, str(seed), *named, str(len(told.false)), str(told.usual),
                f"{told.asked / told.requests:.2%}", f"{told.candidates / told.requests:.1%}",
                f"{(told.pack_s + told.judge_s) / told.requests * 1e6:.0f}",
                f"{told.add_s / told.candidates * 1e6:.0f}", f"{told.state_bytes / 1e6:.0f} MB",
            )  # fmt: skip
            click.echo(f"| {' | '.join(cells)} |")
            for note in told.false:
                click.echo(f"false ({name}, {seed}): {note}", err=True)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
