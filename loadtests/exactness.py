"""Was anything lost, doubled or wrong? Judged by ids: the log is judged anew, undisturbed, and compared.

A lane's effects and state are functions of its log, so the proof is short: read the source topic, run the
same processors over it in this process, and compare what they say with what the workers published and with
what they left in their checkpoints.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from detectors.processor import Output, Processor, Record
from schemas.codec import TICK_TYPE
from schemas.topics import (
    ALERTS,
    CHECKPOINTS,
    DEADLETTERS,
    EVENTS,
    FEEDBACK,
    FINDINGS,
    THRESHOLDS,
    VERDICTS,
    Topic,
    named,
)
from schemas.verdicts import Finding
from streams.kafka import read_to_end

MOST_EXAMPLES = 3


class Exactness(msgspec.Struct, kw_only=True):
    """What the comparison found. All of `lost`, `conflicting`, `unexpected` and `wrong_state` must be 0."""

    records: int = 0
    effects: int = 0  # distinct, expected
    lost: int = 0  # due by the last checkpoints, and not there
    unexpected: int = 0  # there, and not expected
    conflicting: int = 0  # ids with two different contents
    repeated: int = 0  # records that were published again, same id and content: they replace themselves
    wrong_state: int = 0  # partitions whose checkpoint is not what its offset says
    keys: int = 0  # in all checkpoints
    behind: int = 0  # records after the last checkpoints
    examples: list[str] = []  # of what is lost, and of what is unexpected: where it differs from what was expected

    @property
    def exact(self) -> bool:
        """Nothing lost, nothing wrong."""
        return not (self.lost or self.unexpected or self.conflicting or self.wrong_state)


Effect = tuple[str, bytes, bytes]  # topic, identity, content


async def check(
    brokers: Mapping[str, Any],
    suffix: str,
    make: Callable[[int], Processor],
    source: Topic = EVENTS,
    checkpoints: Topic = CHECKPOINTS,
    effects: Sequence[Topic] = (VERDICTS, FINDINGS, DEADLETTERS),
) -> Exactness:
    """Compare a lane's effects and checkpoints with an undisturbed run over its source topic."""
    result = Exactness()
    names = {topic.name for topic in effects}
    expected: dict[Effect, int] = {}  # how often each is there
    due: set[Effect] = set()  # those that the last checkpoints cover
    log = await _by_partition(brokers, named(source, suffix))
    written = await _by_partition(brokers, named(checkpoints, suffix))
    for partition, records in log.items():
        result.records += len(records)
        covered, later = _undisturbed(result, make, partition, records, written.get(partition, []))
        for output in (*covered, *later):
            if output.topic in names:
                expected[_effect(output)] = 0
        due.update(_effect(output) for output in covered if output.topic in names)
    result.effects = len(expected)
    contents: dict[tuple[str, bytes], set[bytes]] = defaultdict(set)
    for topic in effects:
        async for record in read_to_end(brokers, named(topic, suffix)):
            if ("ce_type", TICK_TYPE) in record.headers:
                continue  # moves the time of the lane that reads this topic
            value = record.value or b""
            if topic is FINDINGS and source_of(msgspec.json.decode(value, type=Finding)) is not source:
                continue  # another's
            identity = _identity(topic.name, record)
            contents[topic.name, identity].add(value)
            if (topic.name, identity, value) in expected:
                expected[topic.name, identity, value] += 1
            elif topic is not DEADLETTERS or _is_from(record, named(source, suffix)):
                result.unexpected += 1
                if len(result.examples) < MOST_EXAMPLES:
                    wanted = [key[2] for key in expected if key[:2] == (topic.name, identity)]
                    result.examples.append(f"{topic.name} {_differences(wanted, value)}")
    lost = [effect for effect in due if not expected[effect]]
    result.lost = len(lost)
    result.examples += [f"{topic} lacks {value[:300]!r}" for topic, _, value in lost[:MOST_EXAMPLES]]
    result.repeated = sum(count - 1 for count in expected.values() if count)
    result.conflicting = sum(len(values) > 1 for values in contents.values())
    return result


def _undisturbed(
    result: Exactness,
    make: Callable[[int], Processor],
    partition: int,
    records: Sequence[Record],
    written: Sequence[Record],
) -> tuple[list[Output], list[Output]]:
    """Effects of an undisturbed run up to the checkpoint's offset, where the states are compared, and after it."""
    restored = make(partition)
    for record in written:
        restored.load(record.key or b"", record.value)
    restored.loaded()
    undisturbed = make(partition)
    covered = undisturbed.apply([record for record in records if record.offset < restored.offset])
    state = restored.snapshot()
    result.keys += len(state)
    result.wrong_state += state != undisturbed.snapshot()
    after = [record for record in records if record.offset >= restored.offset]
    result.behind += len(after)
    return covered, undisturbed.apply(after)


async def _by_partition(brokers: Mapping[str, Any], topic: str) -> dict[int, list[Record]]:
    log: dict[int, list[Record]] = defaultdict(list)
    async for record in read_to_end(brokers, topic):
        log[record.partition].append(record)
    return log


def _effect(output: Output) -> Effect:
    return output.topic, _identity(output.topic, output), output.value


def _identity(topic: str, record: Any) -> bytes:
    """What makes an effect one and the same when it is published again."""
    headers = dict(record.headers)
    if topic == DEADLETTERS.name:
        return bytes(headers["x-letter-id"])
    if topic == FINDINGS.name:
        return str(msgspec.json.decode(record.value)["finding_id"]).encode()
    if topic == THRESHOLDS.name:
        return str(msgspec.json.decode(record.value)["update_id"]).encode()
    if topic == ALERTS.name:
        alert = msgspec.json.decode(record.value)
        return f"{alert['alert_id']}/{alert.get('sequence', 0)}".encode()
    return bytes(record.key)


def source_of(finding: Finding) -> Topic | None:
    """What the lane that wrote this finding reads; None: no lane did, a router that was asked answers so."""
    if finding.transplant is not None and finding.transplant.is_answer:
        return None
    if finding.detector == "feedback":
        return FEEDBACK
    by_fleet = (
        finding.campaign
        or finding.kind == "fleet_spend"
        or (finding.detector == "discovery" and finding.kind != "trigger_candidate")
    )
    return FINDINGS if by_fleet else EVENTS


def _differences(wanted: Sequence[bytes], value: bytes) -> str:
    """Fields in which a record differs from the one expected under its id."""
    if not wanted:
        return f"nothing is expected there: {value[:300]!r}"
    try:
        right, seen = msgspec.json.decode(wanted[0]), msgspec.json.decode(value)
        fields = sorted(name for name in right.keys() | seen.keys() if right.get(name) != seen.get(name))
        return ", ".join(f"{name}: {seen.get(name)!r} for {right.get(name)!r}" for name in fields)[:1_000]
    except (msgspec.MsgspecError, AttributeError):
        return "its bytes are others"


def _is_from(record: Record, topic: str) -> bool:
    return dict(record.headers).get("x-original-topic") == topic.encode()
