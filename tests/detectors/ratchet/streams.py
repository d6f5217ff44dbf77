"""Labels for the ratchet's tests: easy rules, and any log whatever."""

from typing import Any

from hypothesis import strategies as st

from detectors.ratchet import RatchetConfig, TrustedLabel, UntrustedReport

DAY = 86_400.0
Entry = TrustedLabel | UntrustedReport


def config(**rules: Any) -> RatchetConfig:
    """Ten steps, few labels needed: everything moves within a short test."""
    easy: dict[str, Any] = {
        "grid": tuple(i / 10 for i in range(10)), "start": 3, "ceiling": 7, "alpha": 0.1, "delta": 0.1,
        "epsilon": 0.01, "least_labels": 20, "least_principals": 3, "arl": 200, "cool_down_s": 3_600.0,
    }  # fmt: skip
    return RatchetConfig(**{**easy, **rules})


def label(
    time: float, score: float = 0.5, unsafe: bool | None = False, who: int = 0, **fields: Any
) -> TrustedLabel:
    """By principal `who`, of one of three tenants."""
    return TrustedLabel(
        time=time, tenant_id=f"t{who % 3}", principal_hash=f"p{who}", score=score, unsafe=unsafe, **fields
    )


def report(time: float, score: float = 0.0, who: int = 0) -> UntrustedReport:
    """By principal `who`, of one of three tenants."""
    return UntrustedReport(time=time, tenant_id=f"t{who % 3}", principal_hash=f"p{who}", score=score)


def safe_labels(n: int, begin: float = 0.0, step: float = 600.0) -> list[TrustedLabel]:
    """Of ten scores in turn."""
    return [label(begin + i * step, score=(i % 10) / 10, who=i) for i in range(n)]


@st.composite
def logs(draw: st.DrawFn, trusted: bool = True, untrusted: bool = True) -> list[Entry]:
    """Any log: bursts of up to 150 entries alike, with any gaps, scores, labels and weights."""
    entries: list[Entry] = []
    time = 0.0
    scores = st.sampled_from([-1.0, 0.05, 0.25, 0.35, 0.45, 0.65, 0.95, float("nan"), float("inf")])
    for _ in range(draw(st.integers(1, 6))):
        gap = draw(st.sampled_from([0.0, 1.0, 600.0, 20_000.0]))
        score, unsafe = draw(scores), draw(st.sampled_from([False, False, True, None]))
        weight = draw(st.sampled_from([1.0, 1.0, 0.3, 7.0, 0.0, -1.0]))
        told = trusted and (not untrusted or draw(st.booleans()))
        time += draw(st.sampled_from([0.0, 3 * DAY, -DAY]))
        for i in range(draw(st.integers(1, 150))):
            time += gap
            entries.append(label(time, score, unsafe, i, weight=weight) if told else report(time, score, i))
    return entries
