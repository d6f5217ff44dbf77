"""The guard: the lane's prompt judgement before the route, shared by whoever asks at the same time."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from detectors.catalogue import Catalogue, shipped
from detectors.contract import Answer
from detectors.guard import MAX_BATCH, Guard
from detectors.panel import PromptPanel, build_panel
from detectors.registry import guard_detectors
from detectors.text import PromptBatch
from detectors.thresholds import Thresholds
from detectors.triggers.detector import TriggerDetector
from schemas.events import Request
from tests.factories import request

TRIGGER = shipped().triggers[0].text
PATIENCE_S = 60.0  # a budget that no test runs into


class Gate:
    """A prompt detector that can be held, and fails when told to."""

    name, version, kinds = "gate", "1", ("novel_text",)

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.batches: list[int] = []

    def score_batch(self, prompts: PromptBatch) -> list[Answer]:
        self.batches.append(len(prompts))
        self.entered.set()
        assert self.open.wait(PATIENCE_S)
        if "fail" in prompts.heads:
            raise RuntimeError("told to")
        return [0.0] * len(prompts)


@pytest.fixture(scope="module")
def panel() -> PromptPanel:
    return build_panel(Thresholds())


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


def held(gate: Gate, **options: Any) -> Guard:
    """A guard that the gate can hold."""
    thresholds = Thresholds()
    panel = PromptPanel(TriggerDetector(thresholds, shipped()), (gate,), thresholds)
    settings: dict[str, Any] = {"fail": "open", "budget_s": PATIENCE_S} | options
    guard = Guard(panel, **settings)
    gate.batches.clear()
    gate.entered.clear()
    return guard


def prompts(n: int) -> list[Request]:
    return [request(f"r{i}", prompt_text=f"What is {i} and {i}?" if i % 2 else f"{TRIGGER} {i}") for i in range(n)]


def test_it_judges_as_the_panel_does(panel: PromptPanel) -> None:
    asked = prompts(8)
    with Guard(panel, guard_detectors(panel.thresholds), fail="closed", budget_s=PATIENCE_S) as guard:
        verdicts = [guard.judge(each) for each in asked]
    assert [verdict.decision for verdict in verdicts] == ["flagged", "clean"] * 4
    assert [guard.admits(verdict) for verdict in verdicts] == [False, True] * 4
    for verdict, facts in zip(verdicts, panel.facts(asked), strict=True):
        assert facts.scores.items() <= verdict.scores.items()
        assert verdict.scores.keys() == {*facts.scores, "probing"}
    assert {verdict.verdict_id for verdict in verdicts}.isdisjoint({"", verdicts[0].request_id})
    assert verdicts[0].reasons[0].trigger_id


def test_concurrent_callers_share_a_batch(gate: Gate) -> None:
    with held(gate) as guard, ThreadPoolExecutor(MAX_BATCH + 9) as callers:
        gate.open.clear()
        first = callers.submit(guard.judge, request())
        assert gate.entered.wait(PATIENCE_S)
        asked = prompts(MAX_BATCH + 5)
        others = [callers.submit(guard.judge, each) for each in asked]
        while guard._waiting.qsize() < len(asked):
            time.sleep(0.001)
        gate.open.set()
        assert first.result().decision == "clean"
        assert [other.result().request_id for other in others] == [each.request_id for each in asked]
    assert gate.batches == [1, MAX_BATCH, 5]


async def test_an_event_loop_stays_free_and_shares_a_batch(gate: Gate) -> None:
    with held(gate) as guard:
        gate.open.clear()
        tasks = [asyncio.create_task(guard.judge_async(each)) for each in prompts(1)]
        await asyncio.to_thread(gate.entered.wait)
        tasks += [asyncio.create_task(guard.judge_async(each)) for each in prompts(6)]
        await asyncio.sleep(0)
        gate.open.set()
        verdicts = await asyncio.gather(*tasks)
    assert [verdict.decision for verdict in verdicts] == ["flagged", *["flagged", "clean"] * 3]
    assert gate.batches == [1, 6]


@pytest.mark.parametrize("fail", ["open", "closed"])
async def test_who_cannot_be_answered_in_time_is_told_so(gate: Gate, fail: Any) -> None:
    with held(gate, fail=fail, budget_s=0.02) as guard:
        gate.open.clear()
        verdicts = [guard.judge(request("r1")), await guard.judge_async(request("r2"))]
        gate.open.set()
    for verdict in verdicts:
        assert (verdict.decision, verdict.unjudged_reason) == ("unjudged", "budget")
        assert guard.admits(verdict) == (fail == "open")
    assert gate.batches == [1], "what nobody waits for any more is not judged"
    assert guard.judge(request()).unjudged_reason == "budget", "a closed guard answers too"


@pytest.mark.parametrize("fail", ["open", "closed"])
def test_a_failure_costs_its_own_prompt_a_verdict(gate: Gate, fail: Any) -> None:
    with held(gate, fail=fail) as guard:
        broken, sound = guard.judge(request(prompt_text="fail")), guard.judge(request())
    assert (broken.decision, broken.unjudged_reason) == ("unjudged", "error")
    assert guard.admits(broken) == (fail == "open")
    assert guard.admits(sound)


def test_a_prompt_without_text_is_unjudged(panel: PromptPanel) -> None:
    with Guard(panel, fail="closed", budget_s=PATIENCE_S) as guard:
        verdict = guard.judge(request(prompt_text=""))
    assert (verdict.decision, verdict.unjudged_reason) == ("unjudged", "no_text")
    assert not guard.admits(verdict)


def test_a_catalogue_swapped_live_is_what_judges() -> None:
    panel = build_panel(Thresholds())
    with Guard(panel, fail="open", budget_s=PATIENCE_S) as guard:
        assert not guard.admits(guard.judge(request(prompt_text=TRIGGER)))
        panel.swap_catalogue(Catalogue((), 77))
        verdict = guard.judge(request(prompt_text=TRIGGER))
    assert guard.admits(verdict)
    assert verdict.catalogue_version == 77


def test_only_the_kinds_named_are_refused(panel: PromptPanel) -> None:
    with Guard(panel, fail="closed", refuse=("novel_text",), budget_s=PATIENCE_S) as guard:
        verdict = guard.judge(request(prompt_text=f"What is the capital of France? {TRIGGER}"))
    assert verdict.decision == "flagged"
    kinds = {reason.kind for reason in verdict.reasons if reason.flagged}
    assert guard.admits(verdict) == ("novel_text" not in kinds)


WRONG: list[dict[str, Any]] = [{"fail": ""}, {"fail": "open", "refuse": ["none"]}, {"fail": "open", "budget_s": 0}]


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_settings_are_refused(panel: PromptPanel, wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"fail|kind|budget"):
        Guard(panel, **wrong)
    with pytest.raises(TypeError):
        Guard(panel)  # type: ignore[call-arg]  # whether to fail open or closed is the gateway's to say


def test_no_text_is_kept(panel: PromptPanel) -> None:
    text = " ".join(["what", "nobody", "keeps"])
    with Guard(panel, guard_detectors(panel.thresholds), fail="open", budget_s=PATIENCE_S) as guard:
        before = sys.getrefcount(text)
        guard.judge(request("kept", prompt_text=text))
        guard.judge(request("next"))  # the first one's batch is over for certain
        assert sys.getrefcount(text) == before


def test_no_torch_and_no_stream_is_imported() -> None:
    code = """
import sys
from detectors.guard import Guard
from detectors.panel import build_panel
from detectors.thresholds import Thresholds
Guard(build_panel(Thresholds()), fail="open").close()
assert not {"torch", "sentence_transformers", "faust", "aiokafka", "sklearn"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
