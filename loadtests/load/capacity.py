"""docs/capacity.md from unit costs: bytes are weighed here, CPU is from `make bench`."""

import asyncio
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import lz4.frame
import msgspec

from detectors.detections import load as load_detections
from detectors.processor import Record
from loadtests.bench import backlog
from loadtests.bench.stages import BATCH, CHECKPOINT_EVENTS
from schemas.clickhouse import migrations
from schemas.codec import InvalidRecord
from schemas.topics import FINDINGS, VERDICTS
from streams.history import History
from streams.lanes import detect
from streams.migrations import migrate
from streams.replay import FileRecord
from streams.settings import Settings
from streams.store import Store

RATES = (1_000, 100_000, 10_000_000)  # requests a second
BUSY = 0.6  # of a core that a worker may be busy in the mean: bursts and a lost neighbour need the rest
BROKER_MB_S = 100.0  # an assumption, not measured: what a broker may be given, copies included
COPIES = 3
DAY_S = 86_400


class _Lane(msgspec.Struct):
    cpu_us_per_request: float
    requests_per_s: float


class _History(msgspec.Struct):
    rows_per_s: float


class Bench(msgspec.Struct):
    """What is needed of `.bench/report.json`."""

    detect: _Lane
    history: _History
    startup_s: float


class Bytes(msgspec.Struct):
    """A request's, its route and outcome with it; what brokers hold is compressed (lz4, by batches)."""

    events: float
    effects: float  # verdicts and findings
    checkpoints: float  # deltas, before compaction
    stored: float  # in ClickHouse, compressed
    rows: float


def measure(requests: int) -> Bytes:
    """Run so many requests through the detect lane's processor and into the engine, and weigh what comes out."""
    made = backlog.make(requests)
    settings = Settings()
    judge = detect.spec(settings, detect.panel_of(settings.detect), load_detections(None)).make(0)
    effects: list[FileRecord] = []
    delta = 0
    for at in range(0, len(made.records), BATCH):
        batch = made.records[at : at + BATCH]
        for out in judge.apply(batch):
            if out.topic in (VERDICTS.name, FINDINGS.name):
                effects.append(FileRecord(out.topic, len(effects), batch[-1].timestamp, out.value, out.key))
        if (at + BATCH) % CHECKPOINT_EVENTS < BATCH:
            delta += sum(len(key) + len(value or b"") for key, value in judge.changes())
    delta += sum(len(key) + len(value or b"") for key, value in judge.changes())
    stored, rows = asyncio.run(_stored([*made.records, *effects]))
    return Bytes(
        events=round(_packed(made.records) / made.requests, 1),
        effects=round(_packed(effects) / made.requests, 1),
        checkpoints=round(delta / made.requests, 1),
        stored=round(stored / made.requests, 1),
        rows=round(rows / made.requests, 2),
    )


def _packed(records: Sequence[Record]) -> int:
    size = 0
    for at in range(0, len(records), 500):  # about what a producer's batch holds
        parts = []
        for record in records[at : at + 500]:
            parts += [record.key or b"", record.value or b""]
            parts += [name.encode() + content for name, content in record.headers]
        size += len(lz4.frame.compress(b"".join(parts)))
    return size


async def _stored(records: Sequence[Record]) -> tuple[int, int]:
    """Bytes and rows of all tables, parts merged."""

    async def refuse(record: Record, error: InvalidRecord) -> None:
        raise RuntimeError(f"refused: {error}")

    with tempfile.TemporaryDirectory(prefix="pointsman-capacity-") as folder:
        async with Store(path=folder) as store:
            await migrate(store, migrations.load())
            history = History(store, refuse)
            for at in range(0, len(records), 20_000):
                await history.insert(records[at : at + 20_000])
            for table in ("requests", "routes", "outcomes", "verdicts", "reasons", "findings"):
                await store.command(f"OPTIMIZE TABLE {table} FINAL")
            answer = await store.query(
                "SELECT sum(data_compressed_bytes), sum(rows) FROM system.parts"
                " WHERE active AND database = currentDatabase()"
            )
    return int(answer.rows[0][0]), int(answer.rows[0][1])


def page(size: Bytes, bench: Bench) -> str:
    """The page docs/capacity.md."""
    cpu, most = bench.detect.cpu_us_per_request, bench.detect.requests_per_s
    lines = [
        "# Capacity",
        "",
        "Made by `python -m loadtests.load.capacity` from what it weighs and from `make bench`'s report. Unit",
        "costs are measured on one small machine; the sizes are arithmetic on them, and what a broker takes",
        f"({BROKER_MB_S:.0f} MB/s) is an assumption. Measure yours before you buy.",
        "",
        "| unit cost, a request (its route and outcome with it) | |",
        "|---|---|",
        f"| CPU of the detect lane | {cpu:.0f} µs |",
        f"| most that one detect worker judged | {most:,.0f} requests/s (it judges in one thread) |",
        f"| history lane, one worker | {bench.history.rows_per_s:,.0f} rows/s |",
        f"| rows in ClickHouse | {size.rows} |",
        f"| ClickHouse's disk | {size.stored:,.0f} bytes |",
        f"| events, compressed, with headers | {size.events:,.0f} bytes |",
        f"| verdicts and findings, compressed | {size.effects:,.0f} bytes |",
        f"| checkpoint deltas, before compaction | {size.checkpoints:,.0f} bytes |",
        f"| start of a worker to ready | {bench.startup_s} s |",
        "",
        "## How to size",
        "",
        f"- **Detect workers**: rate x CPU / {BUSY:.0%}, one core each. A worker judges in one thread: more cores",
        "  for one worker buy nothing, more workers do.",
        "- **Partitions** of the events topic (and of those like it): twice the workers, so that one more worker",
        "  has something to take. The count cannot be changed later: a principal's state is on its partition.",
        f"- **One principal** is one partition: no more than about {most:,.0f} requests/s of one caller are judged",
        "  in time, however many workers there are. Others on its partition wait with it; on other partitions they",
        "  get their share of every round, even in the same worker.",
        "- **Brokers**: all bytes, three copies. Events are read twice (detect, history), effects once.",
        "- **History workers**: rows/s over what one does. **ClickHouse**: disk a day times the days that the TTL",
        "  keeps; it is behind by design when it is slow, and costs detection nothing.",
        "- **Memory** of a worker: `service.memory_mb_last` of a load report, and the state of its partitions,",
        "  which is bounded by the number of keys.",
        "",
        "| requests/s | detect cores | detect workers | partitions | Kafka in, MB/s with copies | brokers"
        " | history workers | ClickHouse rows/s | ClickHouse GB/day |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(rate, size, bench) for rate in RATES),
        "",
        *_BREAKS,
    ]
    return "\n".join(lines) + "\n"


def _row(rate: int, size: Bytes, bench: Bench) -> str:
    cores = rate * bench.detect.cpu_us_per_request / 1e6
    workers = max(2, math.ceil(max(cores, rate / bench.detect.requests_per_s) / BUSY))
    megabytes = rate * (size.events + size.effects + size.checkpoints) * COPIES / 1e6
    brokers = max(3, math.ceil(megabytes / BROKER_MB_S))
    rows = rate * size.rows
    history = max(2, math.ceil(rows / bench.history.rows_per_s / BUSY))
    cells = (
        f"{rate:,}", f"{cores:,.1f}", f"{workers:,}", f"{2 * workers:,}", f"{megabytes:,.0f}", f"{brokers:,}",
        f"{history:,}", f"{rows:,.0f}", f"{rate * size.stored * DAY_S / 1e9:,.0f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


_BREAKS = """## What breaks first

**1,000 a second.** Nothing: one worker could do it, and the second is there for the first's restart. First to feel
it is whoever shares the machine with the brokers: give them disks of their own. A restart costs the partitions of
that worker the seconds of its start (with `kafka.instance_id` set they are not moved about meanwhile).

**100,000 a second.** The group before the CPU. A join or a leave stops all members until the last has given up its
partitions, and every partition that moves is loaded from its checkpoint log. Deploy workers one after the other
with static membership, and raise `detect.checkpoint_events` until a checkpoint is one or two seconds of a
partition's traffic. Second: the busiest principal. Split the keys of a caller with more than a worker's rate by end
user at the gateway. Third: ClickHouse's parts: raise `clickhouse.batch_rows` before adding history workers, each of
which makes inserts of its own. Fourth: the busiest router. All its candidates of unseen triggers go to one
partition of the fleet lane, so that one text is one campaign: 4.5 to 5 % of requests, 220 to 320 µs of CPU each
(docs/detectors/discovery.md, on a busy machine). That thread is full at 55,000 to 100,000 requests a second of one
router: give the routers of several fleets names of their own.

**10,000,000 a second.** Thousands of members and transactional producers are no group that rebalances in time, and
the bytes are those of many clusters. Run cells: about a hundred installations of the size above, tenants assigned
to cells, each with its own topics, groups and ClickHouse shard. What is fleet-wide crosses cells: findings are few
and can be mirrored to one fleet lane, so that campaigns see all; thresholds and triggers are mirrored the other
way. ClickHouse then is the dearest part: keep clean verdicts as the minute tables and a sample, and rows only of
what was flagged, unjudged or audited. Neither that sample nor the mirrors are built.
""".splitlines()


@click.command()
@click.option("--requests", default=20_000, show_default=True, help="To weigh.")
@click.option("--bench", default=".bench/report.json", show_default=True,
              type=click.Path(dir_okay=False, path_type=Path))  # fmt: skip
@click.option("--docs", default="docs", show_default=True, type=click.Path(file_okay=False, path_type=Path))
def main(requests: int, bench: Path, docs: Path) -> None:
    """Weigh, and write DOCS/capacity.md."""
    if not bench.is_file():
        raise click.ClickException(f"{bench} is not there: `make bench` writes it")
    size = measure(requests)
    costs = msgspec.json.decode(bench.read_bytes(), type=Bench)
    (docs / "capacity.md").write_text(page(size, costs), encoding="utf-8")
    click.echo(msgspec.json.encode(size).decode())


if __name__ == "__main__":
    main()
