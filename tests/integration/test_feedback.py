"""Feedback end to end, on real Kafka and the real engine: tickets, labels, a proposal, its approval, its effect."""

import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner

from detectors.detections import shipped
from detectors.feedback import Feedback
from loadtests.exactness import check
from loadtests.workers import Worker
from schemas.audits import AuditLabel, AuditTicket
from schemas.clickhouse import migrations
from schemas.codec import encode, stable_id
from schemas.signatures import chain_problems, derived, signed
from schemas.thresholds import IN_FORCE, ThresholdDecision, ThresholdUpdate
from schemas.topics import (
    AUDITS,
    DEADLETTERS,
    DECISIONS,
    EVENTS,
    FEEDBACK,
    FEEDBACK_CHECKPOINTS,
    FINDINGS,
    REPORTS,
    THRESHOLDS,
    TICKETS,
    VERDICTS,
    Topic,
    named,
)  # fmt: skip
from schemas.verdicts import Verdict
from streams.cli import main
from streams.configuration import load
from streams.embedded.clickhouse import ClickHouseServer
from streams.embedded.kafka import KafkaCluster
from streams.gateways.thresholds import RouterThresholds
from streams.kafka import read_to_end
from streams.lanes.feedback import rules
from streams.migrations import migrate
from streams.store import Store
from streams.topics import create_topics
from tests.factories import at, outcome, request, route

T = TypeVar("T")
KEY = "a secret of the tests only"
FLAG = "novelty.flag"
OTHER = "triggers.bits"
SECONDS = 120.0
KILLS = int(os.environ.get("FEEDBACK_KILLS", "2"))  # FEEDBACK_KILLS=10 is the long form
SEED = 20_260_302


class Rig:
    """One installation: topics with a suffix of their own, settings, workers, and the command line."""

    def __init__(self, kafka: KafkaCluster, run_id: str, folder: Path, **settings: str) -> None:
        self.kafka = kafka
        self.suffix = run_id
        self.folder = folder
        self.answered: set[tuple[str, str]] = set()  # commands that printed their JSON
        self.settings = {
            "POINTSMAN_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "POINTSMAN_KAFKA_TOPIC_SUFFIX": run_id,
            "POINTSMAN_KAFKA_PARTITIONS": "2",
            "POINTSMAN_KAFKA_SESSION_SECONDS": "6",
            "POINTSMAN_DETECT_CHECKPOINT_SECONDS": "0.3",
            "POINTSMAN_FEEDBACK_KEY": KEY,
            "POINTSMAN_FEEDBACK_AUDIT_SHARE": "1",
            "POINTSMAN_FEEDBACK_AUDIT_PERIOD_SECONDS": "1",
            "POINTSMAN_FEEDBACK_APPROVERS": "ann:key-of-ann ben:key-of-ben",
            "POINTSMAN_LOG_JSON": "false",
            **settings,
        }
        for name in ("ann", "ben"):
            (folder / name).write_text(f"key-of-{name}\n")
        asyncio.run(create_topics(kafka.connection, 2, 1, run_id))

    def worker(self, name: str, *roles: str) -> Worker:
        return Worker(name, self.folder, self.settings, roles)

    def produce(self, topic: Topic, *values: msgspec.Struct, key: Callable[[Any], str]) -> None:
        async def send() -> None:
            async with AIOKafkaProducer(**self.kafka.connection) as producer:
                for value in values:
                    await producer.send_and_wait(named(topic, self.suffix), encode(value), key=key(value).encode())

        asyncio.run(send())

    def read(self, topic: Topic, kind: type[T]) -> list[T]:
        async def all_of_it() -> list[T]:
            return [
                msgspec.json.decode(record.value or b"", type=kind)
                async for record in read_to_end(self.kafka.connection, named(topic, self.suffix))
            ]

        return asyncio.run(all_of_it())

    def run(self, *arguments: str, code: int = 0) -> Any:
        """A command with --json: the one document that it prints, or what it says went wrong."""
        result = CliRunner().invoke(main, [*arguments, "--json"], env=self.settings)
        assert result.exit_code == code, (arguments, result.output)
        if not result.stdout:
            return result.output
        self.answered.add((arguments[0], arguments[1]))
        return json.loads(result.stdout)

    def decide(self, *arguments: str, actor: str = "ann", code: int = 0) -> Any:
        how = ("--actor", actor, "--key-file", str(self.folder / actor), "--reason", "a test", "--wait", "60")
        return self.run("threshold", *arguments, *how, code=code)

    def ask(self, number: int) -> None:
        """A request, its route and its outcome, of one of forty principals of two tenants."""
        rid, who, now = f"r{number}", f"p{number % 40}", round(time.time() * 1000)
        tenant = {"tenant_id": f"t{number % 2}"}
        self.produce(
            EVENTS, request(rid, who, now, **tenant), route(rid, who, now, category="maths", **tenant),
            outcome(rid, who, now, evaluation_score_label="unsafe", **tenant),
            key=lambda event: str(event.principal_hash),
        )  # fmt: skip

    def verdict_of(self, number: int) -> Verdict:
        """Ask, and wait for the verdict."""
        self.ask(number)
        found = wait_for(lambda: [v for v in self.read(VERDICTS, Verdict) if v.request_id == f"r{number}"])
        return found[0]

    def judged_by(self, version: int, number: int) -> Verdict:
        """The first verdict that a worker gives by this version or a later one."""
        numbers: Iterator[int] = iter(range(number, number + 1000))
        return wait_for(lambda: v if (v := self.verdict_of(next(numbers))).thresholds_version >= version else None)


def wait_for(look: Callable[[], T | None]) -> T:
    """The first answer that is something."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if answer := look():
            return answer
        time.sleep(0.2)
    raise AssertionError("it did not come")


def test_from_tickets_to_a_threshold_that_workers_judge_by_and_back(
    kafka: KafkaCluster, run_id: str, tmp_path: Path
) -> None:
    with ClickHouseServer(tmp_path / "engine") as server:
        rig = Rig(kafka, run_id, tmp_path, POINTSMAN_CLICKHOUSE_DSN=server.dsn)
        rig.settings["POINTSMAN_CLICKHOUSE_DATABASE"] = "feedback"
        asyncio.run(_migrate(server.dsn))
        with rig.worker("w1", "detect", "feedback", "history") as worker:
            _walk(rig, worker)
            _verify(rig, server.dsn)


async def _migrate(dsn: str) -> None:
    async with Store(dsn, database="feedback") as store:
        await migrate(store, migrations.load())


def _walk(rig: Rig, worker: Worker) -> None:
    # Tickets: of each principal one, once the period in which it asked is over.
    for number in range(40):
        rig.ask(number)
    numbers = iter(range(100, 1000))

    def tickets() -> list[AuditTicket] | None:
        for _ in range(8):
            rig.ask(next(numbers))
        found = [ticket for ticket in rig.read(TICKETS, AuditTicket) if ticket.parameter == FLAG]
        return found if len(found) >= 14 and len({ticket.tenant_id for ticket in found}) == 2 else None

    wait_for(tickets)
    assert rig.read(REPORTS, msgspec.Raw), "outcomes that say unsafe are reported"
    opened = rig.run("audit", "next", "--count", "500")
    assert {ticket["parameter"] for ticket in opened} >= {FLAG}

    # Labels: people say that all of them were attacks. One answers a ticket that nobody drew.
    batch = rig.folder / "answers.json"
    batch.write_text(json.dumps([{**ticket, "label": "unsafe"} for ticket in opened]))
    assert len(rig.run("audit", "label", "--file", str(batch), "--judge", "desk")["answered"]) == len(opened)
    forged = msgspec.structs.replace(rig.read(TICKETS, AuditTicket)[0], ticket_id="mine")
    rig.produce(
        AUDITS, AuditLabel(label_id="x", ticket=forged, judge="eve", label="safe", labelled_at=forged.issued_at),
        key=lambda label: str(label.label_id),
    )  # fmt: skip

    # A proposal, which moves nothing until it is approved by somebody with a key.
    counted = f"{len(opened)} labels counted"

    def proposed_by_labels() -> Any:
        if rig.run("audit", "judges").get("desk", {}).get("labels") != len(opened):
            return None
        proposed = rig.run("threshold", "get", FLAG)["proposed"]
        return [p for p in proposed if "trusted labels" in p["reason"] and not p["scope"].get("tenant_id")]

    (proposal,) = wait_for(proposed_by_labels)
    assert (proposal["cause"], proposal["direction"]) == ("auto", "tighten"), counted
    assert proposal["n_trusted"] > 1
    assert rig.verdict_of(2_000).thresholds_version == 0
    version = str(proposal["version"])
    refused = rig.run(
        "threshold", "approve", version, "--actor", "ann", "--reason", "no key", "--wait", "60", code=1
    )
    assert "not signed by its actor" in refused
    (approved,) = rig.decide("approve", version)["links"]
    assert (approved["mode"], approved["approver"]) == ("active", "ann")
    assert rig.judged_by(approved["version"], 3_000).decision == "clean"

    # An override that flags everything, and the way back.
    assert "lies between" in rig.decide("propose", FLAG, "0", code=1)
    proposed = rig.decide("propose", FLAG, "0.001")["links"][0]
    (override,) = rig.decide("approve", str(proposed["version"]), actor="ben")["links"]
    flagged = rig.judged_by(override["version"], 4_000)
    assert (flagged.decision, flagged.reasons[0].detector) == ("flagged", "novelty")
    assert flagged.reasons[0].threshold_version == flagged.thresholds_version == override["version"]
    (back,) = rig.decide("rollback", "--to", str(approved["version"]))["links"]
    assert (back["mode"], back["new_value"]) == ("rolled_back", approved["new_value"])
    assert rig.judged_by(back["version"], 5_000).decision == "clean"

    # One tenant's own, which is nobody else's.
    proposed = rig.decide("propose", FLAG, "0.001", "--tenant", "t1")["links"][0]
    (own,) = rig.decide("approve", str(proposed["version"]))["links"]
    rig.judged_by(own["version"], 6_000)
    assert (rig.verdict_of(7_000).decision, rig.verdict_of(7_001).decision) == ("clean", "flagged")

    # Past the ceiling it takes two.
    proposed = rig.decide("propose", FLAG, "0.9999")["links"][0]
    (first,) = rig.decide("approve", str(proposed["version"]))["links"]
    assert (first["mode"], first["approver"]) == ("proposed", "ann")
    assert "has approved it already" in rig.decide("approve", str(first["version"]), code=1)
    (second,) = rig.decide("approve", str(first["version"]), actor="ben")["links"]
    assert (second["mode"], second["approver"]) == ("active", "ann, ben")

    # The rest of what people can decide, and a judge that answers by itself.
    held = [rig.decide(*what)["links"][0]["mode"] for what in (("pin", OTHER), ("unpin", OTHER))]
    held += [rig.decide(what)["links"][0]["mode"] for what in ("freeze", "unfreeze")]
    proposed = rig.decide("propose", OTHER, "21")["links"][0]
    held.append(rig.decide("reject", str(proposed["version"]))["links"][0]["mode"])
    assert held == ["pinned", "active", "pinned", "active", "rejected"]
    serve = ("audit", "serve", "--once", "--judge", "quick", "--classifier", "tests.integration.test_feedback:safe")
    assert rig.run(*serve)["answered"] >= 0

    # A router sees the same, but for what is looser than its own limit.
    router = RouterThresholds({FLAG: 0.999}, rig.run("threshold", "keys"), rig.folder / "router.json")
    page = worker.metrics_url.replace("/metrics", "/thresholds")
    asyncio.run(_followed(router, router.poll(page, 0.1), second["version"]))
    assert router.value(FLAG) == 0.999
    careless = RouterThresholds({FLAG: 1.0}, rig.run("threshold", "keys"), rig.folder / "careless.json")
    asyncio.run(_followed(careless, careless.follow_topic(rig.kafka.connection, rig.suffix), second["version"]))
    assert careless.value(FLAG) == 0.9999
    wait_for(lambda: [f for f in rig.read(FINDINGS, msgspec.Raw) if b"feedback_poisoning" in bytes(f)])


async def _followed(router: RouterThresholds, following: Coroutine[Any, Any, None], version: int) -> None:
    task = asyncio.create_task(following)
    async with asyncio.timeout(SECONDS):
        while router.version < version:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    task.cancel()


def _verify(rig: Rig, dsn: str) -> None:
    """The chain is whole; what was done is in it; an edit in the history is seen."""
    last = rig.read(THRESHOLDS, ThresholdUpdate)[-1].version

    def whole() -> Any:
        result = CliRunner().invoke(main, ["threshold", "verify", "--json"], env=rig.settings)
        found = json.loads(result.stdout)
        return found if result.exit_code == 0 and found["checked"] == last else None

    assert wait_for(whole)["signatures"] is True
    assert [link["version"] for link in rig.run("threshold", "history")] == list(range(1, last + 1))
    assert rig.run("threshold", "diff", FLAG, "0")["flagged_after"] > 0
    assert rig.run("threshold", "verify", "--topic")["problems"] == []
    assert rig.run("audit", "judges")["desk"]["labels"] > 10
    (route,) = rig.run("threshold", "routes", "--guardrail-usd", "0.01")
    assert (route["router_name"], route["route"], route["category"], route["kind"]) == (
        "main", "small", "maths", "guardrail",
    )  # fmt: skip
    assert route["cost_usd_per_day"] > 0
    how = ("--submit", "--actor", "ann", "--reason", "it is unsafe", "--wait", "60")
    (refused,) = rig.run("threshold", "routes", *how, code=1)
    assert "not signed by its actor" in refused["refused"]
    (planned,) = rig.run("threshold", "routes", *how, "--dry-run")
    assert planned["decision"]["parameter"] == "routing.guardrail"
    (submitted,) = rig.run("threshold", "routes", *how, "--key-file", str(rig.folder / "ann"))
    assert submitted["links"][0]["scope"]["category"] == "maths"
    assert rig.answered == _with_json("threshold") | _with_json("audit")
    asyncio.run(_edit(dsn))
    problems = rig.run("threshold", "verify", code=1)["problems"]
    assert any("version 2" in problem for problem in problems)


def safe(_: object) -> str:
    """A classifier."""
    return "safe"


def _with_json(group: str) -> set[tuple[str, str]]:
    """The group's commands that have --json."""
    command = main.get_command(click.Context(main), group)
    assert isinstance(command, click.Group)
    return {
        (group, name)
        for name, each in command.commands.items()
        if any(parameter.name == "as_json" for parameter in each.params)
    }


async def _edit(dsn: str) -> None:
    """Another reason for version 2, by one who may write the history."""
    given, other = '"reason":"', '"reason":"not '
    async with Store(dsn, database="feedback") as store:
        await store.command(
            "INSERT INTO threshold_links SELECT version, update_id, time,"
            f" replaceOne(link, '{given}', '{other}'), log_partition, log_offset"
            " FROM threshold_links WHERE version = 2"
        )
        await store.command(
            f"ALTER TABLE threshold_links DELETE WHERE version = 2 AND link NOT LIKE '%{other}%'"
            " SETTINGS mutations_sync = 1"
        )


# --- killed


class Judges:
    """Labels, replays, forgeries and decisions, one after the other, from a seed; knows which ones must count."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self._rig = rig
        self._random = random.Random(seed)
        self._number = 0
        self._answered: list[AuditLabel] = []
        self.sent = 0
        self.must_count = 0

    async def send(self, number: int) -> None:
        async with AIOKafkaProducer(**self._rig.kafka.connection, enable_idempotence=True) as producer:
            for _ in range(number):
                topic, value = self._next()
                await producer.send_and_wait(named(topic, self._rig.suffix), encode(value), key=b"k")
                self.sent += 1

    def _next(self) -> tuple[Topic, msgspec.Struct]:
        self._number += 1
        what = self._random.random()
        if what < 0.05:
            action = self._random.choice(["pin", "unpin", "freeze", "unfreeze", "propose"])
            return DECISIONS, self._decision(action)
        if what < 0.1 and self._answered:
            again = self._random.choice(self._answered)
            return AUDITS, msgspec.structs.replace(again, label_id=f"again-{self._number}")
        ticket = self._ticket()
        if what < 0.15:
            ticket = msgspec.structs.replace(ticket, score=0.1)
        else:
            self.must_count += 1
        answer: Any = "unsafe" if self._random.random() < 0.3 else "safe"
        label = AuditLabel(
            label_id=f"l{self._number}", ticket=ticket, judge="desk", label=answer, labelled_at=ticket.issued_at
        )
        if what >= 0.15:
            self._answered.append(label)
        return AUDITS, label

    def _ticket(self) -> AuditTicket:
        n, now = self._number, at(round(time.time() * 1000))
        ticket = AuditTicket(
            ticket_id=f"k{n}", request_id=f"r{n}", tenant_id=f"t{n % 3}", principal_hash=f"p{n % 50}",
            detector="novelty", parameter=FLAG, router_name="main", route="small", category="maths",
            score=self._random.choice([0.5, 0.985, 0.9995]), threshold=0.999, threshold_version=0,
            issued_at=now, expires_at=now + timedelta(days=1),
        )  # fmt: skip
        return signed(ticket, derived(KEY, "tickets"), "1")

    def _decision(self, action: Any) -> ThresholdDecision:
        decision = ThresholdDecision(
            decision_id=stable_id(str(self._number)), action=action, parameter=FLAG, value=self._random.random(),
            actor="ann", reason="a test", time=at(round(time.time() * 1000)),
        )  # fmt: skip
        return signed(decision, b"key-of-ann", "ann")


def test_killed_at_random_points_it_comes_to_the_same_thresholds(
    kafka: KafkaCluster, run_id: str, tmp_path: Path
) -> None:
    """No ticket is counted twice, and the chain is whole: against an undisturbed run over the same log."""
    rig = Rig(kafka, run_id, tmp_path, POINTSMAN_FEEDBACK_MODE="active", POINTSMAN_KAFKA_INSTANCE_ID="w1")
    judges, chance = Judges(rig, SEED), random.Random(SEED)
    worker = rig.worker("w1", "feedback")
    with worker:
        for _ in range(KILLS):
            asyncio.run(judges.send(chance.randint(50, 150)))
            time.sleep(chance.uniform(0.0, 0.6))
            worker.kill()
            asyncio.run(judges.send(chance.randint(5, 50)))
            worker.start().await_ready()
        asyncio.run(judges.send(100))
        wait_for(lambda: asyncio.run(_checkpointed(rig, judges)))
    assert worker.exit_code() == 0

    allowed = rules(load(None, rig.settings))
    found = asyncio.run(
        check(
            kafka.connection, run_id, lambda _: Feedback(allowed, shipped()), FEEDBACK, FEEDBACK_CHECKPOINTS,
            (THRESHOLDS, FINDINGS, DEADLETTERS),
        )
    )  # fmt: skip
    assert found.exact, found
    links = {link.version: link for link in rig.read(THRESHOLDS, ThresholdUpdate)}
    assert chain_problems([links[version] for version in sorted(links)], {"1": derived(KEY, "updates")}) == []
    assert {link.mode for link in links.values()} >= {"pinned", "active"}
    undisturbed = asyncio.run(_state(rig))
    assert undisturbed.counters["audit_labels.counted"] == judges.must_count
    in_force = [link for link in links.values() if link.mode in IN_FORCE and link.parameter == FLAG]
    assert undisturbed.book.value(FLAG) == max(in_force, key=lambda link: link.version).new_value


async def _checkpointed(rig: Rig, judges: Judges) -> bool:
    """Whether all that was sent is in the lane's last checkpoint."""
    try:
        state = await _state(rig)
    except AssertionError:
        return False
    return sum(state._origins.values()) == judges.sent


async def _state(rig: Rig) -> Feedback:
    feedback = Feedback(rules(load(None, rig.settings)), shipped())
    async for record in read_to_end(rig.kafka.connection, named(FEEDBACK_CHECKPOINTS, rig.suffix)):
        feedback.load(record.key or b"", record.value)
    feedback.loaded()
    return feedback


@pytest.fixture(autouse=True)
def _no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("POINTSMAN_") and name not in ("POINTSMAN_DATA", "POINTSMAN_CACHE"):
            monkeypatch.delenv(name)
