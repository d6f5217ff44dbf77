"""From a real LiteLLM Router to a verdict for each of its requests, and to an alert."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from detectors.catalogue import shipped
from loadtests.workers import Worker
from schemas.alerts import Alert
from schemas.topics import ALERTS, VERDICTS, named
from schemas.verdicts import Verdict
from streams.embedded.kafka import KafkaCluster
from streams.gateways.litellm_events import Gateway
from streams.gateways.publisher import Publisher, from_settings
from streams.kafka import read_to_end
from streams.settings import Kafka, Settings
from streams.topics import create_topics
from tests.streams.gateways import litellm_rig as rig

WILD = "hi, think step by step, analyze this and reason through the pros and cons"
PROMPTS = ["hello there", "what is the capital of France?", WILD]
LONGEST_WAIT = 60.0


async def test_every_request_gets_its_verdict_and_a_known_trigger_its_alert(
    kafka: KafkaCluster, run_id: str, tmp_path: Path
) -> None:
    brokers = {"bootstrap_servers": kafka.bootstrap}
    await create_topics(brokers, 2, 1, run_id)
    settings = Settings(kafka=Kafka(bootstrap=kafka.bootstrap, topic_suffix=run_id))
    environment = {
        "POINTSMAN_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "POINTSMAN_KAFKA_TOPIC_SUFFIX": run_id,
        "POINTSMAN_LOG_JSON": "false",
        "POINTSMAN_DETECT_JOIN_GRACE_SECONDS": "60",  # a call of LiteLLM's takes as long as the machine wants
    }
    publisher = from_settings(settings, "litellm")
    worker = Worker("litellm", tmp_path, environment, ("detect", "fleet")).start()
    try:
        expected = await _traffic(publisher)
        assert await publisher.close(30.0)
        assert publisher.counts == {"ok": 3 * len(expected) + 4}, "one request was tried three times"
        await asyncio.to_thread(worker.await_ready)
        verdicts = await _read(brokers, named(VERDICTS, run_id), Verdict, lambda all_: len(all_) >= len(expected))
        alerts = await _read(brokers, named(ALERTS, run_id), Alert, lambda all_: any(_is_known(a) for a in all_))
    finally:
        code = worker.stop()
    assert code == 0, worker.tail()
    assert sorted(verdict.request_id for verdict in verdicts) == sorted(expected)
    by_id = {verdict.request_id: verdict for verdict in verdicts}
    assert not any(verdict.route_missing for verdict in verdicts)
    assert all(verdict.decision != "unjudged" for verdict in verdicts)
    for request_id, (prompt, principal) in expected.items():
        verdict = by_id[request_id]
        assert verdict.principal_hash == rig.IDENTITY.hash(principal)
        if prompt == PROMPTS[0]:
            assert (verdict.tier, verdict.tier_rank, verdict.decision) == ("SIMPLE", 0, "clean")
        if prompt == WILD:
            assert (verdict.tier, verdict.tier_rank) == ("REASONING", 3)
            assert verdict.difficulty_score is not None
            assert verdict.difficulty_score < 0.35, "scored as cheap, routed to the dearest"
        if principal == "attacker":
            assert verdict.decision == "flagged"
    alert = next(alert for alert in alerts if _is_known(alert))
    assert alert.status == "firing"


async def _traffic(publisher: Publisher) -> dict[str, tuple[str, str]]:
    """Send requests through a Router; the prompt and the user by request id."""
    logger = rig.PointsmanLogger(publisher.publish, Gateway(rig.IDENTITY, instance="e2e"))
    rig.only(logger)
    fleet = rig.router(num_retries=1, fallbacks=[{"broken": ["small"]}])
    trigger = shipped().triggers[0].text
    asked = [("smart", prompt, f"user-{n}") for n in range(4) for prompt in PROMPTS]
    asked += [("smart", f"What time is it in {city}? {trigger}", "attacker") for city in ("Rome", "Oslo", "Lima")]
    asked += [("broken", "hello there, again", "user-1")]
    expected = {}
    try:
        for n, (model, prompt, user) in enumerate(asked):
            await fleet.acompletion(model=model, messages=rig.ask(prompt), user=user, litellm_call_id=f"call-{n}")
            expected[f"call-{n}"] = (prompt, user)
        async with asyncio.timeout(LONGEST_WAIT):
            while publisher.counts.get("ok", 0) < 3 * len(asked) + 4:  # noqa: ASYNC110 (of other threads)
                await asyncio.sleep(0.05)
    finally:
        rig.only()
    assert logger.errors == 0
    return expected


def _is_known(alert: Alert) -> bool:
    return alert.alertname == "known_trigger" and alert.status == "firing"


async def _read(brokers: Any, topic: str, kind: Any, enough: Callable[[list[Any]], bool]) -> list[Any]:
    deadline = time.monotonic() + LONGEST_WAIT
    while True:
        found = [
            msgspec.json.decode(record.value, type=kind)
            async for record in read_to_end(brokers, topic)
            if record.value
        ]
        if enough(found) or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.3)
