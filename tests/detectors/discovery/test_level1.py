"""Windows that come back under other bodies and move the router become candidates, and nothing less does."""

import random
from hashlib import blake2b

from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.contract import Case, PromptFacts
from detectors.discovery import Discovery
from detectors.discovery.expectation import READY, REFERENCE
from detectors.discovery.texts import hashed
from detectors.discovery.windows import pack_windows, unpack_windows
from detectors.text import read_texts
from detectors.thresholds import Thresholds
from detectors.triggers.grow import token_pool
from schemas.events import without_text
from schemas.verdicts import Reason, WindowUse
from tests.factories import NOON_MS, request, route

TRIGGER = "quantum lattice ferment obsidian harpsichord mandrill tungsten apricot"
QUICK = Thresholds({"discovery.baseline": 1_000.0})
WARM = REFERENCE + READY + 200
_WORDS = token_pool("wordlike")[0][:4000]


def body(rng: random.Random) -> str:
    return " ".join(rng.choices(_WORDS, k=24)) + f" {rng.randrange(10**9)}"


def case(number: int, text: str, score: float | None, with_text: bool = False) -> Case:
    facts = PromptFacts(windows=pack_windows(read_texts([text]), with_text)[0])
    return Case(
        time=NOON_MS / 1000 + number,
        request=without_text(request(f"r{number}", f"p{number % 40}")),
        route=route(f"r{number}", f"p{number % 40}", difficulty_score=score, tier_rank=None),
        prompt=facts,
    )


def feed(detector: Discovery, cases: list[Case]) -> list[Reason]:
    reasons = []
    for one in cases:
        answer = detector.score(one)
        detector.learn(one, flagged=False)
        if isinstance(answer, Reason):
            reasons.append(answer)
    return reasons


def warmed(windows: int = 1 << 16) -> Discovery:
    rng, detector = random.Random(1), Discovery(QUICK, windows=windows)
    assert feed(detector, [case(i, body(rng), rng.gauss(0.5, 0.1)) for i in range(WARM)]) == []
    return detector


def uses(n: int, score: float, place: str = "prefix", with_text: bool = False) -> list[Case]:
    rng = random.Random(2)
    cases = []
    for i in range(n):
        words = body(rng).split(" ")
        at = {"prefix": 0, "suffix": len(words), "middle": len(words) // 2}[place]
        text = " ".join([*words[:at], TRIGGER, *words[at:]])
        cases.append(case(WARM + i, text, score, with_text))
    return cases


def use_of(reason: Reason) -> WindowUse:
    assert reason.use is not None
    return reason.use


WARMED = warmed().snapshot()


def ready() -> Discovery:
    detector = Discovery(QUICK, windows=1 << 16)
    for key, value in WARMED.items():
        detector.load(key, value)
    return detector


def test_a_window_that_lifts_is_a_candidate_under_one_name_and_flags_nothing() -> None:
    for place, edge in (("prefix", "head"), ("suffix", "tail"), ("middle", "inside")):
        reasons = feed(ready(), uses(10, 0.9, place))
        assert len(reasons) >= 6
        assert {(reason.kind, reason.flagged) for reason in reasons} == {("trigger_candidate", False)}
        assert len({reason.window for reason in reasons}) == 1
        assert {use_of(reason).place for reason in reasons} == {edge}
        assert {reason.direction for reason in reasons} == {"up"}
        assert not any(use_of(reason).usual for reason in reasons)


def test_a_window_that_lowers_the_score_points_down() -> None:
    assert {reason.direction for reason in feed(ready(), uses(10, 0.1))} == {"down"}


def test_a_window_that_moves_nothing_is_no_candidate() -> None:
    assert feed(ready(), uses(20, 0.5)) == []


def test_the_same_prompt_again_is_no_further_use() -> None:
    one = uses(1, 0.9)[0]
    assert feed(ready(), [one] * 30) == []


def test_most_of_a_mutated_window_is_enough() -> None:
    rng = random.Random(3)
    cases = []
    for i in range(20):
        words = TRIGGER.split(" ")
        words[rng.randrange(len(words))] = rng.choice(_WORDS)
        cases.append(case(WARM + i, f"{' '.join(words)} {body(rng)}", 0.9))
    reasons = feed(ready(), cases)
    assert len(reasons) >= 8
    names = [reason.window for reason in reasons]
    assert names.count(max(set(names), key=names.count)) >= 0.7 * len(names)


def test_what_comes_back_beside_a_window_is_no_context_of_it() -> None:
    rng, words = random.Random(4), TRIGGER.split(" ")
    own = set(hashed(unpack_windows(pack_windows(read_texts([TRIGGER]))[0]).tokens.tolist()))
    cases = []
    for i in range(12):
        between = " ".join(rng.choices(_WORDS, k=8))
        text = f"{' '.join(words[:4])} {between} {' '.join(words[4:])} {body(rng)}"
        cases.append(case(WARM + i, text, 0.9))
    reasons = feed(ready(), cases)
    assert len(reasons) >= 6
    assert all(len(use_of(reason).tokens) < len(own) for reason in reasons), "a window is a part"
    assert sum(len(own & set(use_of(reason).rest)) for reason in reasons) < len(reasons)


def test_the_text_travels_only_where_it_is_allowed() -> None:
    assert {use_of(reason).text for reason in feed(ready(), uses(10, 0.9))} == {""}
    texts = [use_of(reason).text for reason in feed(ready(), uses(10, 0.9, with_text=True))]
    assert texts.count(TRIGGER) >= 5


def test_one_ordinary_word_in_a_trigger_does_not_make_it_usual() -> None:
    rng, detector, old = random.Random(1), Discovery(QUICK, windows=1 << 16), "harpsichord mandrill"
    assert old in TRIGGER
    feed(
        detector,
        [case(i, f"{old} {body(rng)}" if i % 20 == 0 else body(rng), rng.gauss(0.5, 0.1)) for i in range(WARM)],
    )
    usual = [use_of(reason).usual for reason in feed(detector, uses(20, 0.9))]
    assert usual.count(False) >= 15, "the first may see that word alone"


def test_what_was_in_use_from_the_beginning_is_usual() -> None:
    rng, detector = random.Random(1), Discovery(Thresholds(), windows=1 << 16)
    with_window = [
        case(i, f"{TRIGGER} {body(rng)}" if i % 20 == 0 else body(rng), rng.gauss(0.5, 0.1)) for i in range(WARM)
    ]
    feed(detector, with_window)
    reasons = feed(detector, uses(20, 0.9))
    assert reasons
    assert all(use_of(reason).usual for reason in reasons)


def test_candidates_say_how_many_requests_there_were_since_the_last() -> None:
    reasons = feed(ready(), uses(12, 0.9))
    assert use_of(reasons[0]).requests > WARM
    assert sum(use_of(reason).requests for reason in reasons) <= WARM + 12


def test_without_a_text_or_at_an_outcome_it_cannot_judge() -> None:
    blind = case(0, "x", 0.5)
    blind.prompt = PromptFacts()
    assert ready().score(blind) is None


def test_without_any_score_windows_are_counted_but_nothing_is_evidence() -> None:
    cases = uses(10, 0.9)
    for one in cases:
        assert one.route is not None
        one.route.difficulty_score = None
    assert feed(ready(), cases) == []


def test_a_restored_detector_goes_on_as_the_one_that_was_stored() -> None:
    first, cases = ready(), uses(12, 0.9)
    feed(first, cases[:4])
    second = Discovery(QUICK, windows=1 << 16)
    for key, value in first.snapshot().items():
        second.load(key, value)
    assert feed(first, cases[4:]) == feed(second, cases[4:])
    assert first.snapshot() == second.snapshot()


def test_an_erased_principal_leaves_no_digest_in_a_model_and_others_keep_theirs() -> None:
    detector = ready()

    def held(principal: str) -> bool:
        digest = blake2b(f"t1\0{principal}".encode(), digest_size=8).digest()
        return any(digest in value for value in detector.snapshot().values())

    assert held("p1")
    assert held("p2")
    list(detector.changes())
    detector.forget("t1", "p1")
    assert not held("p1")
    assert held("p2")
    assert len(list(detector.changes())) == 1, "the next checkpoint has it"
    detector.forget("t1", "p1")
    assert list(detector.changes()) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=80), min_size=1, max_size=4), st.booleans())
def test_windows_pack_and_unpack(texts: list[str], with_text: bool) -> None:
    batch = read_texts(texts)
    for i, packed in enumerate(pack_windows(batch, with_text)):
        seen = unpack_windows(packed)
        assert len(seen.tokens) == batch.lengths[i]
        assert seen.pieces == (batch.pieces[i] if with_text else ())


def test_a_window_of_a_long_prompt_is_read_from_its_own_end() -> None:
    long = " ".join(random.Random(4).choices(_WORDS, k=600))
    for text in (f"{TRIGGER} {long}", f"{long} {TRIGGER}"):
        seen = unpack_windows(pack_windows(read_texts([text]), with_text=True)[0])
        size, own = len(seen.tokens), len(unpack_windows(pack_windows(read_texts([TRIGGER]))[0]).tokens)
        begin = 0 if text.startswith(TRIGGER) else size - own
        assert seen.window_text(begin, begin + own) == TRIGGER
