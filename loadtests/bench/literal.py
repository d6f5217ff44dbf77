"""The design read literally, as one would write it first: `python -m loadtests.bench.literal` runs it.

A Faust topic agent takes one event at a time, embeds each prompt with MiniLM and matches it with FAISS against
the catalogue's texts, keeps River models a principal for difficulty and cost, writes each event into
ClickHouse, and publishes a verdict when request and route have met. What it does well, it does as well as its
parts allow: normalised vectors in a flat index, column types given so that no insert asks for them, the engine in
this process, uvloop.
"""

import asyncio
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import faiss
import faust
import msgspec
import uvloop
from river import stats

from detectors.catalogue import shipped
from detectors.training import sentence_transformer_path
from schemas.topics import EVENTS, VERDICTS, named
from streams.embedded.clickhouse import open_engine

SIMILAR = 0.8  # cosine from which a prompt is taken for a trigger's
LEAST = 20  # events of a principal before it is judged
DEVIATIONS = 4.0  # below its own mean, from which an estimate is implausibly low
BURST = 5.0  # times its slow average, from which the fast one is a burst

COLUMNS = {
    "event_id": "String",
    "event_type": "LowCardinality(String)",
    "event_time": "DateTime64(3, 'UTC')",
    "request_id": "String",
    "tenant_id": "LowCardinality(String)",
    "principal_hash": "String",
    "selected_model": "LowCardinality(String)",
    "difficulty_score": "Float64",
    "cost_usd": "Float64",
    "similarity": "Float64",
    "flagged": "Bool",
}


@dataclass
class Principal:
    """What is usual for one."""

    seen: int = 0
    difficulty: Any = field(default_factory=lambda: stats.EWMean(0.05))
    spread: Any = field(default_factory=lambda: stats.EWVar(0.05))
    cost: Any = field(default_factory=lambda: stats.EWMean(0.3))
    usual_cost: Any = field(default_factory=lambda: stats.EWMean(0.01))

    def is_low(self, score: float) -> bool:
        """Whether a difficulty estimate is implausibly low; learns it."""
        deviation = max(self.spread.get(), 1e-4) ** 0.5
        low = self.seen >= LEAST and score < self.difficulty.get() - DEVIATIONS * deviation
        self.seen += 1
        self.difficulty.update(score)
        self.spread.update(score)
        return bool(low)

    def is_burst(self, cost: float) -> bool:
        """Whether costs have escalated; learns this one."""
        self.cost.update(cost)
        self.usual_cost.update(cost)
        return bool(self.seen >= LEAST and self.cost.get() > BURST * self.usual_cost.get())


class Detector:
    """Judges one event at a time."""

    def __init__(self, folder: Path) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        # Two threads on two cores that brokers share spin longer than they work: one is faster here.
        torch.set_num_threads(1)
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._model = SentenceTransformer(str(sentence_transformer_path()), device="cpu")
        self._triggers = shipped().triggers
        vectors = self._embed([trigger.text for trigger in self._triggers])
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(vectors)
        self._principals: defaultdict[str, Principal] = defaultdict(Principal)
        self._matches: dict[str, tuple[float, str]] = {}  # of requests whose route is awaited
        self._engine = open_engine(folder)
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        self._engine.command(
            f"CREATE TABLE IF NOT EXISTS events ({columns}) ENGINE = MergeTree ORDER BY (tenant_id, event_time)"
        )

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - began

    def _embed(self, texts: list[str]) -> Any:
        return self._model.encode(texts, normalize_embeddings=True, show_progress_bar=False)

    def judge(self, event: dict[str, Any]) -> dict[str, Any] | None:
        """The verdict on a request, at its route; every event is stored."""
        kind, request_id = event["event_type"], event["request_id"]
        principal = self._principals[event["principal_hash"]]
        similarity, trigger, flagged = 0.0, "", False
        if kind == "request":
            with self._stage("embed"):
                vector = self._embed([event.get("prompt_text", "")])
            with self._stage("match"):
                cosine, nearest = self._index.search(vector, 1)
            similarity, trigger = float(cosine[0, 0]), self._triggers[int(nearest[0, 0])].trigger_id
            self._matches[request_id] = similarity, trigger
            flagged = similarity > SIMILAR
        elif kind == "route":
            with self._stage("models"):
                similarity, trigger = self._matches.pop(request_id, (0.0, ""))
                low = principal.is_low(event["difficulty_score"])
                flagged = low or similarity > SIMILAR
        else:
            with self._stage("models"):
                flagged = principal.is_burst(event.get("cost_usd", 0.0))
        with self._stage("insert"):
            self._insert(event, similarity, flagged)
        if kind != "route":
            return None
        return {
            "request_id": request_id,
            "tenant_id": event["tenant_id"],
            "principal_hash": event["principal_hash"],
            "decision": "flagged" if flagged else "clean",
            "similarity": similarity,
            "trigger_id": trigger,
            "difficulty_score": event["difficulty_score"],
        }

    def _insert(self, event: dict[str, Any], similarity: float, flagged: bool) -> None:
        row = [
            event["event_id"],
            event["event_type"],
            datetime.fromisoformat(event["event_time"]),
            event["request_id"],
            event["tenant_id"],
            event["principal_hash"],
            event.get("selected_model", ""),
            event.get("difficulty_score", 0.0),
            event.get("cost_usd", 0.0),
            similarity,
            flagged,
        ]
        self._engine.insert("events", [row], column_names=list(COLUMNS), column_type_names=list(COLUMNS.values()))


class _Literal(faust.App):
    def _create_directories(self) -> None:
        """No folder: each run would leave one where it was started."""


def build(bootstrap: str, suffix: str, detector: Detector) -> faust.App:
    """The app: one agent on the events topic."""
    app = _Literal(
        f"literal{suffix}",
        broker=[f"kafka://{host}" for host in bootstrap.split(",")],
        store="memory://",
        value_serializer="json",
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        worker_redirect_stdouts=False,
    )
    events = app.topic(named(EVENTS, suffix), value_serializer="json")
    verdicts = app.topic(named(VERDICTS, suffix), value_serializer="json")

    @app.agent(events)
    async def judge(stream: AsyncIterable[dict[str, Any]]) -> None:
        async for event in stream:
            verdict = detector.judge(event)
            if verdict is not None:
                await verdicts.send(key=verdict["request_id"].encode(), value=verdict)

    return app


@click.command()
@click.option("--bootstrap", required=True)
@click.option("--suffix", required=True, help="Of the topics' names.")
@click.option("--folder", required=True, type=click.Path(path_type=Path), help="Of the ClickHouse engine.")
def main(bootstrap: str, suffix: str, folder: Path) -> None:
    """Judge until standard input ends; then print the seconds that each stage took, as JSON."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    detector = Detector(folder)
    app = build(bootstrap, suffix, detector)

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        os.write(1, msgspec.json.encode(dict(detector.seconds)) + b"\n")  # Faust has taken sys.stdout
        os._exit(0)  # and chdb the signals that would stop Faust

    threading.Thread(target=end_with_parent, daemon=True).start()
    faust.Worker(app, loop=loop, quiet=True, loglevel="WARNING", redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    main()
