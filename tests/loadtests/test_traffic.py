"""The generator's promises: seeded, valid for the codec, untidy as gateways are, and truthful about its attacks."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from click.testing import CliRunner

from loadtests import traffic
from loadtests.arrivals import arrivals, bursts
from loadtests.attacks.campaigns import CAMPAIGNS, KINDS, plant
from loadtests.attacks.scene import Scene
from loadtests.fleet import Ask, Fleet
from loadtests.router import DifficultyRouter
from loadtests.traffic import Sent, Truth, attacks_in, events, score_all
from schemas.codec import decode_event, encode
from schemas.events import Outcome, Request, Route


@pytest.fixture(scope="module")
def router() -> DifficultyRouter:
    return DifficultyRouter.load("words")


def _made(router: DifficultyRouter, seed: int, n: int = 1500) -> tuple[list[Ask], list[Sent]]:
    asks = Fleet(seed, None, principals=60).asks(n, rate=50)
    return asks, events(asks, score_all(router, asks), router, seed)


def test_same_seed_same_bytes(router: DifficultyRouter) -> None:
    first, again = ([encode(event) for _, event in _made(router, seed=3)[1]] for _ in range(2))
    assert first == again
    assert first != [encode(event) for _, event in _made(router, seed=4)[1]]


def test_every_event_is_valid(router: DifficultyRouter) -> None:
    for at, event in _made(router, seed=5)[1]:
        stamp = int((traffic.START.timestamp() + at) * 1000)
        record = SimpleNamespace(
            topic="t", partition=0, offset=0, timestamp=stamp, key=b"k", value=encode(event), headers=()
        )
        assert decode_event(record) == event


def test_untidy_within_bounds(router: DifficultyRouter) -> None:
    asks, sent = _made(router, seed=6, n=4000)
    assert [at for at, _ in sent] == sorted(at for at, _ in sent)
    ids = Counter(event.event_id for _, event in sent)
    assert 0 < sum(count > 1 for count in ids.values()) < 60  # published twice
    requests = {event.request_id for _, event in sent if isinstance(event, Request)}
    routes = {event.request_id for _, event in sent if isinstance(event, Route)}
    outcomes = {event.request_id for _, event in sent if isinstance(event, Outcome)}
    assert len(requests) == len(asks)
    assert 0 < len(requests - routes) < 40
    assert 0 < len(requests - outcomes) < 60
    seen: set[str] = set()
    late = 0
    for _, event in sent:
        late += isinstance(event, Route) and event.request_id not in seen
        seen.add(event.request_id if isinstance(event, Request) else "")
    assert 0 < late < 150
    assert any(isinstance(event, Route) and event.cache_hit for _, event in sent)
    assert any(isinstance(event, Route) and event.fallback_from for _, event in sent)


def test_callers_have_habits(router: DifficultyRouter) -> None:
    asks, _ = _made(router, seed=7, n=4000)
    by_caller = Counter(ask.principal.name for ask in asks)
    assert max(by_caller.values()) > 5 * min(by_caller.values())
    assert any(ask.turn > 1 for ask in asks)
    texts = Counter(ask.text for ask in asks)
    assert any(count > 1 for count in texts.values())


def test_arrivals_keep_rate_and_bursts() -> None:
    when = arrivals(5000, rate=100, seed=1, data=None)
    assert (when.at[1:] >= when.at[:-1]).all()
    assert when.at[-1] == pytest.approx(50)
    per_second = Counter(when.at.astype(int).tolist())
    assert max(per_second.values()) > 2 * 100
    assert (bursts(100, 2).at == bursts(100, 2).at).all()


@pytest.mark.parametrize("name", sorted(set(CAMPAIGNS) - {"known"}))
def test_campaigns_do_what_they_say(name: str, router: DifficultyRouter) -> None:
    fleet = Fleet(11, None, principals=60)
    asks = plant(name, fleet, router, start=10, seconds=20, requests=24)
    assert len(asks) == 24
    assert all(10 <= ask.at <= 31 and ask.attack == name for ask in asks)
    scores = score_all(router, asks)
    if asks[0].tamper:
        changed = [event for _, event in events(asks, scores, router, 11)]
        for ask in asks:
            ask.tamper = None
        assert changed != [event for _, event in events(asks, scores, router, 11)]
    elif name == "spoof":
        assert all(ask.score is not None and ask.score < 0.1 for ask in asks)
    elif name == "wallet":
        assert len({ask.principal.hash for ask in asks}) == 1
        ordinary = router.score([prompt.text for prompt in fleet.prompts[:500]])
        assert min(scores.values()) > sorted(ordinary)[int(0.8 * len(ordinary))]
    else:
        ordinary = router.score([prompt.text for prompt in fleet.prompts[:500]])
        lift = sum(scores.values()) / len(scores) - ordinary.mean()
        assert lift > (0.02 if name == "phrase" else ordinary.std() / 2), "it must lift"


def test_known_trigger_stays_recognisable(router: DifficultyRouter) -> None:
    import random

    from loadtests.attacks.known import known

    scene = Scene(Fleet(1, None, principals=60), router, random.Random(1), 0, 10)
    asks = known(scene, ["zebra quantum lattice ordeal"], 30)
    assert sum("zebra" in ask.text for ask in asks) > 5
    assert len({ask.text for ask in asks}) == 30


def test_the_truth_names_each_planted_request(router: DifficultyRouter, tmp_path: Path) -> None:
    out = tmp_path / "events.jsonl"
    arguments = ["--seed", "2", "--requests", "400", "--attacks", "wallet,spoof", "--out", str(out)]
    result = CliRunner().invoke(traffic.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    truth = msgspec.json.decode(out.with_suffix(".truth.json").read_bytes(), type=Truth)
    lines = [msgspec.json.decode(line) for line in out.read_bytes().splitlines()]
    owners = {line["request_id"]: line["principal_hash"] for line in lines if line["event_type"] == "request"}
    assert (truth.requests, truth.events) == (len(owners), len(lines))
    assert sorted(attack.name for attack in truth.attacks) == ["spoof", "wallet"]
    for attack in truth.attacks:
        assert len(attack.request_ids) == CAMPAIGNS[attack.name].requests
        assert {owners[request] for request in attack.request_ids} == set(attack.principals)
        assert tuple(attack.kinds) == KINDS[attack.name]


def test_no_attack_no_truth(router: DifficultyRouter) -> None:
    asks, _ = _made(router, seed=8, n=50)
    assert attacks_in(asks, KINDS, seed=8) == []
