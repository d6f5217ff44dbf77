"""What holds under any stream whatever: Hypothesis plays whoever writes every label."""

from itertools import pairwise
from typing import Any

from detectors.ratchet import Ratchet, RatchetConfig, TrustedLabel

DAY = 86_400.0


def config(**rules: Any) -> RatchetConfig:
    """Ten steps, few labels needed: everything moves within a short test."""
    easy: dict[str, Any] = {
        "grid": tuple(i / 10 for i in range(10)), "start": 3, "ceiling": 7, "alpha": 0.1, "delta": 0.1,
        "epsilon": 0.01, "least_labels": 20, "least_principals": 3, "arl": 50, "cool_down_s": 3_600.0,
    }  # fmt: skip
    return RatchetConfig(**{**easy, **rules})


def label(
    time: float, score: float = 0.5, unsafe: bool | None = False, who: int = 0, **fields: Any
) -> TrustedLabel:
    return TrustedLabel(
        time=time, tenant_id=f"t{who % 3}", principal_hash=f"p{who}", score=score, unsafe=unsafe, **fields
    )


def safe_labels(n: int, begin: float = 0.0, step: float = 600.0) -> list[TrustedLabel]:
    return [label(begin + i * step, score=(i % 10) / 10, who=i) for i in range(n)]


def test_safe_labels_loosen_one_step_at_a_time_up_to_the_ceiling() -> None:
    ratchet = Ratchet(config())
    moves = ratchet.follow(safe_labels(2_000))
    assert [(move.why, move.new_index) for move in moves] == [("evidence", i) for i in (4, 5, 6, 7)]
    assert ratchet.threshold == 0.7
    assert all(b.time - a.time >= DAY for a, b in pairwise(moves))
    assert all(move.e_value >= 1 / move.delta and move.risk_ucb < 2 * move.alpha for move in moves)


def test_misses_tighten() -> None:
    ratchet = Ratchet(config())
    moves = ratchet.follow(label(i, score=0.05, unsafe=i % 2 == 0, who=i) for i in range(40))
    assert moves[0].why == "alarm"
    assert moves[0].new_index < 3
    assert ratchet.epoch > 1
