"""The benchmark's short form with tiny numbers: the report is whole, and its ratios are of its own parts."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from detectors.judge import Judge, JudgeLimits
from detectors.panel import build_panel
from detectors.registry import stream_detectors
from detectors.thresholds import Thresholds
from loadtests.bench import backlog, page, recovery
from loadtests.bench.__main__ import Plan, run
from loadtests.bench.backlog import Backlog
from loadtests.bench.report import Report
from loadtests.bench.rounds import DONE, Round, Sample, measure, summarise
from loadtests.bench.stages import Clock
from streams.embedded.kafka import KafkaCluster

TINY = Plan(rounds=1, requests=900, literal_requests=25, in_process=300, history_requests=200, long_requests=12,
            triggers=200)  # fmt: skip


async def test_a_tiny_run_reports_every_figure(cluster: KafkaCluster, tmp_path: Path) -> None:
    report = await run(TINY, cluster, tmp_path, None)
    detect, literal = report.detect, report.literal
    assert DONE * TINY.requests - 1 <= detect.rounds[0].verdicts <= TINY.requests
    assert DONE * TINY.literal_requests - 1 <= literal.rounds[0].verdicts <= TINY.literal_requests
    assert report.detect_over_literal == pytest.approx(detect.requests_per_s / literal.requests_per_s, rel=0.01)
    assert report.detect_over_ceiling == pytest.approx(
        detect.requests_per_s / report.ceiling.requests_per_s, rel=0.01, abs=0.001
    )
    assert report.checkpoint_share == pytest.approx(
        report.checkpoint_us_per_request / detect.cpu_us_per_request, abs=0.001
    )
    history = report.history
    assert history.over_bare_insert == pytest.approx(history.rows_per_s / history.bare_rows_per_s, abs=0.001)
    assert detect.stages.keys() == {"judge", "publish", "checkpoint"}
    assert literal.stages.keys() == {"embed", "match", "models", "insert"}
    assert report.judge_us_per_request.keys() >= {"decode", "tokenise", "lexical", "semantic", "spend", "verdict"}
    assert report.codec.keys() == {"request", "route", "outcome"}
    assert report.startup_s > 0
    assert 0 < report.guard.p50_ms <= report.guard.p99_ms
    assert report.guard.requests_per_s_32 > 0
    assert report.ratchet.labels_per_s > report.ratchet.nested_labels_per_s > 0
    assert 1_000 < report.ratchet.state_bytes <= 4_096
    for sides in (report.scale.principals, report.scale.triggers, report.scale.chars, report.scale.settled):
        assert sides.ratio == pytest.approx(sides.many_us / sides.few_us, abs=0.001)
    page.write(msgspec.json.decode(msgspec.json.encode(report), type=Report), tmp_path)
    text = (tmp_path / "benchmarks.md").read_text()
    assert f"**{report.detect_over_literal:,.1f}**" in text
    for plot in (page.RATES, page.STAGES):
        assert plot in text
        assert (tmp_path / plot).read_text().rstrip().endswith("</svg>")


def _round(rate: float, **fields: Any) -> Round:
    return Round(100, 100, rate, 3 * rate, fields.get("cpu", 1.0), 1.0, {"judge": 0.5})


def test_a_grown_state_loads_and_has_its_keys() -> None:
    panel = build_panel(Thresholds())
    judge, again = (Judge(panel, stream_detectors(panel.thresholds), JudgeLimits()) for _ in range(2))
    judge.apply(backlog.make(20).records)
    state = recovery.grown(judge.snapshot(), 500)
    assert 500 <= len(state) < 510
    for key, value in state.items():
        again.load(key, value)
    again.loaded()
    assert again.snapshot() == state


def test_rounds_become_medians_with_their_range() -> None:
    lane = summarise([_round(30.0, cpu=9.0), _round(10.0, cpu=1.0), _round(20.0, cpu=2.0)])
    assert (lane.requests_per_s, lane.requests_per_s_min, lane.requests_per_s_max) == (20.0, 10.0, 30.0)
    assert lane.cpu_us_per_request == 2.0


def test_a_run_shorter_than_two_looks_has_its_cpu_too() -> None:
    backlog = Backlog([], 100)
    samples = [Sample(0, 2.0), Sample(100, 2.5)]
    found = measure(backlog, list(range(1_000, 1_100)), samples, 1.0, {"judge": 0.0495})
    assert found.cpu_us_per_request == 5_000.0
    assert found.requests_per_s == 1_000.0
    assert found.stages == {"judge": 0.505}


def test_a_stage_does_not_count_what_it_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 4.0, 10.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    clock = Clock()
    inner = clock.timed("inner", lambda: None)
    clock.timed("outer", inner)()
    assert clock.seconds == {"inner": 3.0, "outer": 7.0}
