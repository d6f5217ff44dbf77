"""The gateway's guard: made by the settings, kept up to date, and asked by LiteLLM before it routes."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litellm.exceptions import GuardrailRaisedException

from detectors.catalogue import append_records, shipped
from detectors.guard import Guard
from detectors.panel import build_panel
from detectors.thresholds import DEFAULTS, Thresholds
from schemas.codec import encode
from schemas.thresholds import ThresholdScope, ThresholdUpdate
from schemas.topics import THRESHOLDS, named
from schemas.triggers import Trigger
from streams.catalogues import TopicStore
from streams.embedded.kafka import KafkaCluster
from streams.gateways import guard as guards
from streams.gateways.guard import FileFollower, TopicFollower
from streams.gateways.litellm_events import Gateway
from streams.settings import Guard as GuardSettings
from streams.settings import Settings, SettingsError
from streams.topics import create_topics
from tests.factories import NOON_MS, at, request
from tests.streams.gateways import litellm_rig as rig

PATIENCE_S = 60.0
TRIGGER = shipped().triggers[0]
OWN = "zorbl quandry vex mitral plonk esker thrum wistal borago fint"


def entry(trigger_id: str, text: str, version: int = 1, **fields: Any) -> Trigger:
    defaults: dict[str, Any] = {"kind": "lexical", "review": "approved", "updated_at": at(NOON_MS)}
    return Trigger(trigger_id=trigger_id, version=version, text=text, **{**defaults, **fields})


def known(guard: Guard, text: str) -> bool:
    return not guard.admits(guard.judge(request(prompt_text=f"What is the capital of France? {text}")))


@pytest.mark.parametrize(
    ("wanted", "missing"),
    [
        (GuardSettings(), "guard.fail"),
        (GuardSettings(fail="open"), "nothing to follow"),
        (GuardSettings(fail="closed", thresholds="t.json", refuse="no_such_kind"), "no_such_kind"),
    ],
)
def test_a_guard_that_cannot_be_made_is_an_error(wanted: GuardSettings, missing: str) -> None:
    with pytest.raises(SettingsError, match=missing):
        guards.from_settings(Settings(guard=wanted))


def test_the_settings_make_a_guard(tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    append_records(own, [entry("own", OWN)])
    wanted = GuardSettings(fail="closed", refuse="novel_text, known_trigger", budget_ms=60_000, catalogue=str(own))
    guard = guards.from_settings(Settings(guard=wanted))
    assert guard.refuse == {"known_trigger", "novel_text"}
    assert not guard.passes_unjudged
    while guard.panel.catalogue.triggers[0].trigger_id != "own":
        time.sleep(0.005)
    assert known(guard, OWN)
    guard.close()


def test_files_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "LOOK_SECONDS", 0.01)
    catalogue, thresholds = tmp_path / "own.jsonl", tmp_path / "thresholds.json"
    append_records(catalogue, [entry("own", OWN)])
    panel = build_panel(Thresholds())
    follower = FileFollower(panel, str(catalogue), str(thresholds))
    with Guard(panel, fail="open", budget_s=PATIENCE_S) as guard:
        follower.start()
        assert follower.current.wait(PATIENCE_S)
        assert known(guard, OWN)
        assert not known(guard, TRIGGER.text)
        thresholds.write_text(json.dumps({"triggers.bits": 10_000.0}))
        while panel.thresholds["triggers.bits"] != 10_000:
            follower.current.clear()
            assert follower.current.wait(PATIENCE_S)
        thresholds.write_bytes(b'{"\xff": 1}')
        follower.current.clear()
        assert follower.current.wait(PATIENCE_S)
        thresholds.write_text('{"triggers.none": 1}')
        catalogue.write_text("not a trigger")
        follower.current.clear()
        assert follower.current.wait(PATIENCE_S)
        assert panel.thresholds["triggers.bits"] == 10_000
        assert panel.catalogue.triggers[0].trigger_id == "own"
    follower.close()


async def test_the_control_topics_are_followed(kafka: KafkaCluster, run_id: str) -> None:
    brokers = {"bootstrap_servers": kafka.bootstrap}
    await create_topics(brokers, 1, 1, run_id)
    store = TopicStore(brokers, run_id)
    await store.append([entry("own", OWN)])
    panel = build_panel(Thresholds())
    follower = TopicFollower(panel, brokers, run_id)
    follower.start()
    with Guard(panel, fail="closed", budget_s=PATIENCE_S) as guard:
        assert await asyncio.to_thread(follower.current.wait, PATIENCE_S)
        assert known(guard, OWN)
        assert known(guard, TRIGGER.text), "the shipped entries are the topic's base"
        await store.append([entry("own", OWN, version=2, review="retired")])
        await _write(brokers, named(THRESHOLDS, run_id), update(0.9))
        async with asyncio.timeout(PATIENCE_S):
            while known(guard, OWN) or panel.thresholds["triggers.share"] != 0.9:  # noqa: ASYNC110 (another thread's)
                await asyncio.sleep(0.05)
    await asyncio.to_thread(follower.close)


def update(value: float) -> ThresholdUpdate:
    return ThresholdUpdate(
        update_id="u1", scope=ThresholdScope(detector="triggers"), parameter="triggers.share",
        old_value=DEFAULTS["triggers.share"], new_value=value, direction="loosen", version=3, mode="active",
        cause="manual", time=at(NOON_MS),
    )  # fmt: skip


async def _write(brokers: dict[str, str], topic: str, record: msgspec.Struct) -> None:
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(**brokers)
    await producer.start()
    await producer.send_and_wait(topic, encode(record), key=b"key")
    await producer.stop()


async def through_the_proxy(logger: rig.PointsmanLogger, text: str) -> None:
    """The hook as LiteLLM's proxy calls it before it routes; what it raises is the proxy's answer."""
    data = {"model": "smart", "messages": rig.ask(text), "litellm_call_id": "c1", "metadata": {}}
    await logger.async_pre_call_hook(None, None, data, "acompletion")


@pytest.mark.parametrize("prompt", ["hash", "ends"])
async def test_the_proxy_refuses_what_the_guard_does_not_admit(prompt: Any) -> None:
    events: list[Any] = []
    with Guard(build_panel(Thresholds()), fail="open", budget_s=PATIENCE_S) as guard:
        logger = rig.PointsmanLogger(events.append, Gateway(rig.IDENTITY, prompt), guard)
        await through_the_proxy(logger, "What is the capital of France?")
        with pytest.raises(GuardrailRaisedException, match="refused") as refused:
            await through_the_proxy(logger, f"What is the capital of France? {TRIGGER.text}")
    assert refused.value.blocked_content
    assert [type(event).__name__ for event in events] == ["Request", "Request"], "the stream sees both"
    assert bool(events[1].prompt_text) == (prompt == "ends"), "what the guard reads does not leave the gateway"


@pytest.mark.parametrize("fail", ["open", "closed"])
async def test_what_could_not_be_judged_passes_or_not_as_was_said(fail: Any) -> None:
    guard = Guard(build_panel(Thresholds()), fail=fail, budget_s=0.001)
    guard.close()  # nobody answers in time any more
    logger = rig.PointsmanLogger(lambda event: None, Gateway(rig.IDENTITY), guard)
    if fail == "open":
        await through_the_proxy(logger, "What is the capital of France?")
    else:
        with pytest.raises(GuardrailRaisedException, match="could not be judged") as refused:
            await through_the_proxy(logger, "What is the capital of France?")
        assert not refused.value.blocked_content
