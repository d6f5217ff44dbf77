"""Figures of load: the curve, its knee, and what is left out of them."""

from pathlib import Path

import msgspec

from loadtests.load import page, saturation
from loadtests.load.generated import Generated
from loadtests.load.report import Feedback, Generator, Report, Times, grouped, halves, service, times
from loadtests.load.run import Plan
from loadtests.load.saturation import Curve, Step, curve, knee
from loadtests.load.watching import Look
from loadtests.machine import machine
from loadtests.reckoning import Reckoning
from loadtests.report import Detection


def step(offered: float, judged: float, p99: float) -> Step:
    return Step(offered, judged, p99 / 2, p99)


def test_the_knee_is_the_last_step_before_the_first_that_is_too_much() -> None:
    steps = [step(100, 100, 20), step(200, 199, 30), step(300, 250, 900), step(400, 400, 50)]
    assert knee(steps) == 200, "judged falls behind; that a later step looks well is luck"
    assert knee([step(100, 100, 1_001)]) == 0
    assert knee([]) == 0


def test_a_curve_leaves_out_the_first_quarter_of_each_step() -> None:
    """Two steps of 10 s: 10/s at 50 ms, then 20/s at 2 s; what is slow before 2.5 s of a step is start-up."""
    verdicts = [(n / 10, 5.0 if n < 25 else 0.05, "") for n in range(100)]
    verdicts += [(10 + n / 20, 2.0, "") for n in range(200)]
    found = curve(Generated(verdict_at=verdicts, started=0.0, ended=20.0), Plan(gateways=2, seconds=20, seed=3))
    assert [(s.offered_per_s, s.p50_ms, s.p99_ms) for s in found.steps] == [
        (10.0, 50.0, 50.0),
        (20.0, 2000.0, 2000.0),
    ]
    assert found.knee_per_s == 10.0


def test_floods_are_measured_apart_from_the_others() -> None:
    verdicts = [(1.0, 0.1, ""), (9.0, 0.2, ""), (9.0, 5.0, "the flood's")]
    generated = Generated(verdict_at=verdicts, started=0.0, ended=10.0)
    first, second = halves(generated)
    assert first is not None
    assert second is not None
    assert (first.p99, second.p99) == (100.0, 200.0)
    groups = grouped(generated)
    assert {whose: each.count for whose, each in groups.items()} == {"others": 2, "the flood's": 1}
    assert grouped(Generated(verdict_at=verdicts[:2])) == {}, "nobody to tell apart"
    assert times([]) is None


def test_a_soak_that_grows_is_a_problem() -> None:
    looks = [Look(float(n), float(n), 100.0 + n, 50, 9, {"detect": n}) for n in range(40)]
    used = service(looks, requests=39, drained_s=1.0)
    assert used.cpu_us_per_request == 1e6
    assert used.most_lag == {"detect": 39}
    assert used.growth == {"memory_mb": 0.08, "handles": 0.0, "threads": 0.0}
    assert service([], 0, 0.0).growth == {}


def report(scenario: str) -> Report:
    first, second = Times(10, 20, 100, 200, 50), Times(10, 20, 115, 300, 50)
    return Report(
        scenario=scenario, seed=1, seconds=10.0, requests=1_000, requests_per_s=100.0, exact=True, verdict_ms=first,
        verdict_ms_by_group={}, verdict_ms_by_half=[first, second], alert_ms=None, visible_ms=second,
        attacks=[Detection("known", 4, True, 1.3)], recall=0.75, false_alerts={}, reckoning=Reckoning(lost=3),
        feedback=Feedback(labels=0, refused=0, misled=0, loosened=0),
        service=service([Look(float(n), 0.0, 100.0 + n, 50, 9, {"detect": n}) for n in range(40)], 1_000, 1.5),
        generator=Generator(late_p99_ms=2.0, cpu_share=0.1, saturated=False, failed=0, errors={}),
        machine=machine(0.1, real_prompts=False),
    )  # fmt: skip


def test_the_page_shows_what_was_lost_the_flood_the_soak_and_the_knee(tmp_path: Path) -> None:
    for name in ("hot_key", "soak"):
        (tmp_path / f"{name}.json").write_bytes(msgspec.json.encode(report(name)))
    saturation.write(Curve([step(100, 100, 20), step(200, 120, 3_000)], 100.0, 1), tmp_path / "curve.json")
    page.write(tmp_path, tmp_path)
    text = (tmp_path / "load-figures.md").read_text()
    assert "| hot_key | 100 | 10 / 100 | - | 115 | 1.3 | 75% | 0 | 39 | 1.5 | 3, 0, 0 | 2 |" in text
    assert "100 ms before it, 115 ms while it lasts (+15%;" in text
    assert "1,000 requests in 10 s. The last quarter over the one before: memory +8.0%, handles +0.0%" in text
    assert "The knee is at **100 requests/s**" in text
    assert (tmp_path / page.PLOT).read_text().rstrip().endswith("</svg>")
