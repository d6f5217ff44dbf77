import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from detectors.catalogue import read_records
from schemas.codec import encode
from schemas.topics import PROPOSALS, TRIGGERS, named
from schemas.triggers import Trigger
from streams.cli import main
from streams.embedded.kafka import KafkaCluster
from streams.topics import create_topics
from tests.detectors.triggers.gadgets import PROMPTS, gadget

TEMPLATE = "Answer the question below as well as you can, giving your answer in one short sentence at the end"
AUDIT = ("--reviewer", "ada", "--reason", "seen in two campaigns")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "benign.jsonl"
    texts = [*PROMPTS, f"{TEMPLATE}. How many legs has a spider?", f"{TEMPLATE}. Who wrote Emma?"]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["triggers", *map(str, arguments)])


def imported(where: Sequence[str | Path], tmp_path: Path, *texts: str) -> list[Trigger]:
    source = tmp_path / "found.txt"
    source.write_text("\n".join(texts))
    result = call(*where, "import", source, "--provenance", "a honeypot", "--licence", "own", "--json")
    assert result.exit_code == 0, result.output
    return [msgspec.json.decode(line, type=Trigger) for line in result.output.splitlines()]


def test_import_review_approve_and_retire_keep_who_and_why(tmp_path: Path, reference: Path) -> None:
    file = tmp_path / "catalogue.jsonl"
    where = ("--file", file)
    (entry,) = imported(where, tmp_path, gadget(random.Random(1)))
    assert (entry.review, entry.provenance, entry.licence) == ("proposed", "a honeypot", "own")
    assert imported(where, tmp_path, entry.text) == []
    assert len(read_records(file).catalogue()) == 0

    reviewed = call(*where, "review", "--reference", reference, "--json")
    assert json.loads(reviewed.output)["bits"] > 60
    assert call(*where, "approve", entry.trigger_id, "--reference", reference, *AUDIT).exit_code == 0
    (approved,) = read_records(file).catalogue().triggers
    assert (approved.reviewer, approved.reason) == ("ada", "seen in two campaigns")
    assert approved.version > entry.version
    assert approved.bits > 60

    assert call(*where, "retire", entry.trigger_id, *AUDIT).exit_code == 0
    assert len(read_records(file).catalogue()) == 0
    assert len(file.read_bytes().splitlines()) == 4  # the whole history
    assert "retired" in call(*where, "ls").output
    assert call(*where, "ls", "--review", "approved").output == ""


def test_a_template_of_benign_prompts_is_refused_and_the_texts_are_shown(tmp_path: Path, reference: Path) -> None:
    where = ("--file", tmp_path / "catalogue.jsonl")
    (entry,) = imported(where, tmp_path, TEMPLATE)
    result = call(*where, "approve", entry.trigger_id, "--reference", reference, *AUDIT)
    assert result.exit_code == 1
    assert "spider" in result.output
    assert json.loads(call(*where, "review", "--reference", reference, "--json").output)["benign_hits"] == 2
    assert call(*where, "ls", "--review", "approved").output == ""


def test_too_few_bits_are_refused(tmp_path: Path, reference: Path) -> None:
    where = ("--file", tmp_path / "catalogue.jsonl")
    (entry,) = imported(where, tmp_path, "explain this topic")
    result = call(*where, "approve", entry.trigger_id, "--reference", reference, *AUDIT)
    assert result.exit_code == 1
    assert "bits" in result.output


def test_one_refused_entry_stops_the_whole_approval(tmp_path: Path, reference: Path) -> None:
    where = ("--file", tmp_path / "catalogue.jsonl")
    good, bad = imported(where, tmp_path, gadget(random.Random(2)), "too short")
    result = call(*where, "approve", good.trigger_id, bad.trigger_id, "--reference", reference, *AUDIT)
    assert result.exit_code == 1
    assert call(*where, "ls", "--review", "approved").output == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ls"], "no catalogue"),
        (["--file", "c.jsonl", "reject", "nobody", *AUDIT], "no such trigger: nobody"),
        (["--file", "c.jsonl", "grow", "--router", "no.such:router"], "no router"),
        (["--file", "broken.jsonl", "ls"], "broken.jsonl:1"),
    ],
)
def test_errors_are_said_and_exit_with_failure(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POINTSMAN_KAFKA_BOOTSTRAP", raising=False)
    Path("broken.jsonl").write_text('{"text": 1}\n')
    result = call(*arguments)
    assert result.exit_code == 1
    assert said in result.output
    assert "Traceback" not in result.output


class LetterRouter:
    """Scores a text by its share of the letter e: a router that a climb can move."""

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([text.count("e") / max(len(text), 1) for text in texts])


def test_grown_gadgets_are_proposed_with_how_they_were_grown(tmp_path: Path) -> None:
    where = ("--file", tmp_path / "catalogue.jsonl")
    router = f"{__name__}:LetterRouter"
    result = call(*where, "grow", "--router", router, "--sampling", "wordlike", "--count", "2", "--json")
    assert result.exit_code == 0, result.output
    entries = [msgspec.json.decode(line, type=Trigger) for line in result.output.splitlines()]
    assert len({entry.text for entry in entries}) == 2
    assert all(entry.review == "proposed" and "wordlike" in entry.provenance for entry in entries)
    assert all(entry.text.count("e") / len(entry.text) > 0.15 for entry in entries)


def listed(where: tuple[str, ...]) -> dict[str, Trigger]:
    lines = call(*where, "ls", "--json").output.splitlines()
    return {entry.trigger_id: entry for entry in (msgspec.json.decode(line, type=Trigger) for line in lines)}


async def test_the_topic_keeps_the_same_catalogue(
    kafka: KafkaCluster, run_id: str, tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create_topics({"bootstrap_servers": kafka.bootstrap}, 1, 1, run_id)
    assert named(TRIGGERS, run_id) != TRIGGERS.name
    monkeypatch.setenv("POINTSMAN_KAFKA_TOPIC_SUFFIX", run_id)
    where = ("--bootstrap", kafka.bootstrap)
    (entry,) = await asyncio.to_thread(imported, where, tmp_path, gadget(random.Random(4)))
    approved = await asyncio.to_thread(call, *where, "approve", entry.trigger_id, "--reference", reference, *AUDIT)
    assert approved.exit_code == 0, approved.output
    held = await asyncio.to_thread(listed, where)
    assert (held[entry.trigger_id].review, held[entry.trigger_id].reviewer) == ("approved", "ada")
    old = next(name for name in held if name != entry.trigger_id)  # of those that ship, which workers match too
    retired = await asyncio.to_thread(call, *where, "retire", old, *AUDIT)
    assert retired.exit_code == 0, retired.output
    assert (await asyncio.to_thread(listed, where))[old].review == "retired"


async def test_who_proposes_can_neither_approve_nor_overrule_nor_remove(
    kafka: KafkaCluster, run_id: str, tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create_topics(kafka.connection, 1, 1, run_id)
    monkeypatch.setenv("POINTSMAN_KAFKA_TOPIC_SUFFIX", run_id)
    where = ("--bootstrap", kafka.bootstrap)
    (entry,) = await asyncio.to_thread(
        imported, ("--file", tmp_path / "c.jsonl"), tmp_path, gadget(random.Random(5))
    )

    async def propose(*values: bytes | None) -> None:
        async with AIOKafkaProducer(**kafka.connection) as producer:
            for value in values:
                await producer.send_and_wait(named(PROPOSALS, run_id), value, key=entry.trigger_id.encode())

    async def held() -> Trigger:
        return (await asyncio.to_thread(listed, where))[entry.trigger_id]

    forged = msgspec.structs.replace(entry, version=99, review="approved", reviewer="ada")
    await propose(encode(forged))
    assert ((await held()).review, (await held()).reviewer) == ("proposed", "")
    approved = await asyncio.to_thread(call, *where, "approve", entry.trigger_id, "--reference", reference, *AUDIT)
    assert approved.exit_code == 0, approved.output
    await propose(encode(msgspec.structs.replace(forged, version=10_000, review="retired")), None)
    assert ((await held()).review, (await held()).version) == ("approved", 100)
