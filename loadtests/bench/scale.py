"""What many principals and triggers, long prompts and full joins cost: CPU a request, beside few and short ones.

Two judges take the same batches in turns, so that whatever else the machine does meets both. Python's garbage
collector is as a worker has it: as it comes, it looks at a million keys again and again, which no worker does.
"""

import time
from collections.abc import Iterable, Sequence

import msgspec

from detectors.catalogue import Catalogue
from detectors.joins import Joins
from detectors.judge import Judge, JudgeLimits
from detectors.panel import build_panel
from detectors.processor import Record
from detectors.registry import stream_detectors
from detectors.thresholds import Thresholds
from loadtests.bench.backlog import of_events
from loadtests.bench.triggers import catalogue, gadgets, prompts_of
from loadtests.fleet import hashed
from loadtests.traffic import Sent
from schemas.codec import decode_event
from schemas.events import AnyEvent, Request
from streams.garbage import settled

PRINCIPALS = (1_000, 1_000_000)  # whom requests come from: of a million, nearly each is met for the first time
FEW_TRIGGERS = 100
CHARS = (400, 200_000)
BATCH, LONG_BATCH = 2_000, 120  # events; a long prompt's have megabytes


class Sides(msgspec.Struct):
    """µs of CPU a request (its route and outcome with it) with few of something and with many, and their ratio."""

    few: int
    many: int
    few_us: float
    many_us: float
    ratio: float


class Figures(msgspec.Struct):
    """Of a judge in this process."""

    principals: Sides
    triggers: Sides
    chars: Sides
    settled: Sides  # of the joins alone: while they fill, and once each request that settles displaces another


def measure(records: Sequence[Record], triggers: int, long_requests: int) -> Figures:
    """Judge one partition's records, but for what is compared; `long_requests`: how many with long prompts."""
    sent = [Sent(0.0, event) for record in records if (event := decode_event(record)) is not None]
    few, many = (of_events(_of_principals(sent, number)).records for number in PRINCIPALS)
    small, large = (_judge(catalogue(gadgets(number))) for number in (FEW_TRIGGERS, triggers))
    short, long = (of_events(_of_chars(sent, chars, long_requests)).records for chars in CHARS)
    with settled():
        return Figures(
            Sides(*PRINCIPALS, *_compare(_judge(), few, _judge(), many, BATCH)),
            Sides(FEW_TRIGGERS, triggers, *_compare(small, records, large, records, BATCH)),
            Sides(*CHARS, *_compare(_judge(), short, _judge(), long, LONG_BATCH)),
            _of_settled(),
        )


def _judge(entries: Catalogue | None = None) -> Judge:
    panel = build_panel(Thresholds(), entries)
    return Judge(panel, stream_detectors(panel.thresholds), JudgeLimits())


def _of_principals(sent: Iterable[Sent], number: int) -> list[Sent]:
    """The same events of other callers, chosen by the request."""
    return [Sent(at, msgspec.structs.replace(event, principal_hash=_one_of(event, number))) for at, event in sent]


def _one_of(event: AnyEvent, number: int) -> str:
    return hashed(str(int(hashed(event.request_id)[-12:], 16) % number))


def _of_chars(sent: Iterable[Sent], chars: int, most: int) -> list[Sent]:
    """The events of the first requests, with prompts of so many characters."""
    texts = prompts_of(chars, most)
    prompts: dict[str, str] = {}
    found = []
    for at, event in sent:
        if isinstance(event, Request):
            if event.request_id not in prompts and len(prompts) == most:
                break
            text = prompts.setdefault(event.request_id, texts[min(len(prompts), most - 1)])
            event = msgspec.structs.replace(event, prompt_text=text, prompt_chars=len(text))
        found.append(Sent(at, event))
    return found


def _compare(
    one: Judge, few: Sequence[Record], other: Judge, many: Sequence[Record], batch: int
) -> tuple[float, float, float]:
    """Both in turns, a batch each. The first of each is not counted: it loads what is loaded once."""
    used, requests = [0.0, 0.0], 0
    for at in range(0, len(few), batch):
        took = [_cpu_s(one, few[at : at + batch]), _cpu_s(other, many[at : at + batch])]
        if at or len(few) <= batch:
            used = [used[0] + took[0], used[1] + took[1]]
            requests += sum(isinstance(decode_event(record), Request) for record in few[at : at + batch])
    few_us, many_us = (round(seconds / requests * 1e6, 1) for seconds in used)
    return few_us, many_us, round(many_us / few_us, 3)


def _of_settled() -> Sides:
    most, joins = JudgeLimits().most_settled, Joins()
    filling_us, full_us = (_pass_through(joins, first, most) for first in (0, most))
    return Sides(0, most, filling_us, full_us, round(full_us / filling_us, 3))


def _pass_through(joins: Joins, first: int, most: int) -> float:
    """µs of CPU in which a request comes, is settled and displaces another."""
    began = time.process_time()
    for i in range(first, first + most):
        key = ("p", str(i))
        joins.open(key, i, i)
        joins.settle(key, i, i)
        next(joins.overdue(i - 1, most), None)
        joins.forget_settled(-1, most)
    return round((time.process_time() - began) / most * 1e6, 3)


def _cpu_s(judge: Judge, records: Sequence[Record]) -> float:
    began = time.process_time()
    judge.apply(records)
    return time.process_time() - began
