"""Why an alert fired, in sentences with their numbers: of our own words, with names of events inert in them."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from detectors.detections import Detection, Detections
from streams.evidence.dossier import Dossier, Row
from streams.notifiers.text import inert, many, timestamp
from streams.runbooks import runbook

MOST_NAMED = 10
_LN_10 = math.log(10)


class Sentence(msgspec.Struct, kw_only=True):
    """A statement and what it stands on."""

    text: str
    numbers: dict[str, Any] = {}


class Explanation(msgspec.Struct, kw_only=True):
    """An alert explained. `requests`: the first ones, with what was said of each."""

    alert_id: str
    headline: str
    why: list[Sentence]
    requests: list[dict[str, Any]]
    thresholds: dict[str, float]  # that the findings were held against, by parameter or detector
    thresholds_version: int
    catalogue_version: int
    runbook: list[str]


def explain(dossier: Dossier, detections: Detections) -> Explanation:
    """Explain from the dossier alone."""
    alert = dossier.alert
    detection = detections.get(alert["alertname"])
    by_kind: dict[str, list[Row]] = defaultdict(list)
    for finding in dossier.findings:
        by_kind[finding["kind"]].append(finding)
    why = [_firing(alert, detection)]
    why += [_kind(kind, findings) for kind, findings in by_kind.items()]
    why += [sentence for sentence in (_routes(dossier), _cost(dossier), _quiet(alert)) if sentence]
    return Explanation(
        alert_id=alert["alert_id"],
        headline=_headline(alert),
        why=why,
        requests=_requests(dossier),
        thresholds=_thresholds(dossier),
        thresholds_version=max((row["threshold_version"] for row in dossier.findings), default=0),
        catalogue_version=max((row["catalogue_version"] for row in dossier.findings), default=0),
        runbook=runbook(alert, detections),
    )


def _headline(alert: Row) -> str:
    identity = ", ".join(
        f"{inert(name)} {inert(value)}"
        for name, value in sorted(alert["labels"].items())
        if value and name not in ("alertname", "category")
    )
    return (
        f"{alert['summary']} ({inert(alert['alertname'])}, {alert['severity']}, {alert['status']})"
        f" of {identity or 'the fleet'}, {timestamp(alert['starts_at'])} to {timestamp(alert['last_seen'])}."
    )


def _firing(alert: Row, detection: Detection | None) -> Sentence:
    counts = {name: alert[name] for name in ("count", "principals", "tenants")}
    seen = (
        f"{many(alert['count'], 'finding')} of {many(alert['principals'], 'principal')}"
        f" and {many(alert['tenants'], 'tenant')} make it up"
    )
    if detection is None:
        return Sentence(text=f"{seen}; the detection is not among those in force any more.", numbers=counts)
    when = detection.when
    if when.condition is None:
        condition = f"it fires when {' and '.join(detection.log_types)} come within {when.timespan}"
    elif when.condition.gte == 1:
        condition = "it fires at the first one"
    else:
        of = f" different values of {when.condition.field}" if when.condition.field else ""
        condition = f"it fires at {when.condition.gte}{of or ' of them'} within {when.timespan}"
        counts |= {"fires_at": when.condition.gte, "within": when.timespan}
    return Sentence(text=f"{seen}; {condition}.", numbers=counts)


def _kind(kind: str, findings: Sequence[Row]) -> Sentence:
    """What the strongest finding of a kind says, and how many more there are."""
    worst = max(findings, key=lambda row: row["score"] - row["threshold"])
    numbers = {
        "score": worst["score"], "threshold": worst["threshold"], "findings": len(findings),
        "first": findings[0]["time"], "last": findings[-1]["time"],
        **{name: worst[name] for name in ("expected", "seen") if worst[f"has_{name}"]},
    }  # fmt: skip
    say = _SAYINGS.get(kind, _plain)
    more = f" It is the strongest of {many(len(findings), 'finding')} of this kind." if len(findings) > 1 else ""
    by = f" (detector {worst['detector']} {worst['detector_version']}, request {inert(worst['request_id'])})"
    return Sentence(text=f"{say(worst)}{by}.{more}", numbers=numbers)


def _known_trigger(row: Row) -> str:
    entry = f"the catalogued trigger {inert(row['trigger_id'])}, version {row['trigger_version']}"
    if row["stage"] in ("lexical", "fragment"):
        what = "" if row["stage"] == "lexical" else "words of "
        return (
            f"The prompt holds {what}{entry}: so much of it would stand together by chance in one prompt of"
            f" 2^{row['score']:.0f} ({row['score']:.1f} bits), and"
            f" {row['threshold']:.4g} flag in a catalogue of that size; {row['note']}"
        )
    return (
        f"A stretch of the prompt means what {entry} means: their likeness is {row['score']:.2f} of 1,"
        f" and {row['threshold']:.2f} flag; {row['note']}"
    )


def _novel_text(row: Row) -> str:
    return (
        f"An end of the prompt reads like text that an optimiser made: it is odder than {row['score']:.2%} of"
        f" ordinary prompts, and {row['threshold']:.2%} flag"
    )


def _unseen_trigger(row: Row) -> str:
    window = f"The window {inert(row['window'])}"
    if row["stage"] == "transplant":
        return (
            f"{window} was put into ordinary prompts, and the router scored them {row['score']:.1f} standard"
            f" deviations further {row['direction']} in the mean; a prompt counts as moved from"
            f" {row['threshold']:.1f}; {row['note']}"
        )
    return (
        f"{window} stands in prompts that the router scores otherwise than their other words explain; {row['note']}"
    )


def _denial_of_wallet(row: Row) -> str:
    return (
        f"{row['note']}: the evidence ({row['stage']}) is {row['score']:.4g},"
        f" {row['score'] / row['threshold']:.1f} times its threshold of {row['threshold']:.4g}"
    )


def _spoofed_difficulty(row: Row) -> str:
    if row["stage"] == "habit":
        return (
            f"Request after request the principal's difficulty estimates are below what prompts like it get:"
            f" added up, {row['score'] / row['threshold']:.1f} times what flags"
        )
    return (
        f"The difficulty estimate is {row['score']:.1f} robust standard deviations below what prompts like it get"
        f" (fewer where such lows are usual), and {row['threshold']:.1f} flag"
    )


def _tier_contradiction(row: Row) -> str:
    astray = "low" if row["direction"] == "down" else "high"
    return (
        f"By its score the request belonged into tier {row['expected']:.0f}, and went to tier {row['seen']:.0f}:"
        f" {row['score']:.0f} steps too {astray}, and {row['threshold']:.0f} flag"
    )


def _share(row: Row) -> str:
    score, threshold = row["score"], row["threshold"]
    compared = f", against {row['expected']:.1%} that is usual or allowed" if row["has_expected"] else ""
    if threshold < 1:  # of a release that compared shares
        evidence = f"the excess that is certain is {score:.1%}, and {threshold:.1%} flag"
    else:
        odds, needed = (f"{math.exp(min(log, 700.0)):,.0f}" for log in (score, threshold))
        evidence = f"the evidence is {odds} to one, and {needed} to one flags"
    return f"{row['note']}: {row['seen']:.1%}{compared}; {evidence}"


def _unsafe_route(row: Row) -> str:
    return (
        f"{row['note']}: {row['seen']:.1%} of those labelled lately, where {row['expected']:.1%} are allowed; bets"
        f" that no more than these are unsafe were lost at 1 to 10^{row['score'] / _LN_10:.1f}, and"
        f" 10^{row['threshold'] / _LN_10:.1f} flag"
    )


def _plain(row: Row) -> str:
    return f"{row['note'] or row['kind']}: {row['score']:.4g} against a threshold of {row['threshold']:.4g}"


_SAYINGS: Mapping[str, Callable[[Row], str]] = {
    "known_trigger": _known_trigger,
    "novel_text": _novel_text,
    "unseen_trigger": _unseen_trigger,
    "denial_of_wallet": _denial_of_wallet,
    "spoofed_difficulty": _spoofed_difficulty,
    "tier_contradiction": _tier_contradiction,
    "tier_downgrade": _tier_contradiction,
    "guardrail_gap": _share,
    "unsafe_route": _unsafe_route,
    "unjudged": _share,
}


def _routes(dossier: Dossier) -> Sentence | None:
    taken = Counter((row["selected_model"], row["tier"]) for row in dossier.routes).most_common()
    if not taken:
        return None
    named = [
        f"{number} to {inert(model)}" + (f" (tier {inert(tier)})" if tier else "")
        for (model, tier), number in taken[:MOST_NAMED]
    ]
    return Sentence(
        text=f"Of its requests went {', '.join(named)}.",
        numbers={"routes": [{"model": model, "tier": tier, "requests": n} for (model, tier), n in taken]},
    )


def _cost(dossier: Dossier) -> Sentence | None:
    paid = sum(row["cost_usd"] for row in dossier.outcomes if row["has_cost_usd"])
    extra = dossier.alert["est_cost_usd"] if dossier.alert["has_est_cost_usd"] else None
    if not paid and extra is None:
        return None
    more = f"; estimated {extra:.4f} USD more than their baseline routes" if extra is not None else ""
    return Sentence(text=f"They cost {paid:.4f} USD{more}.", numbers={"paid_usd": paid, "extra_usd": extra})


def _quiet(alert: Row) -> Sentence | None:
    by = {"suppressed": alert["suppressed_by"], "inhibited": alert["inhibited_by"]}
    reasons = [f"{what} by {inert(rule)}" for what, rule in by.items() if rule]
    return Sentence(text=f"Nobody was told: it was {' and '.join(reasons)}.") if reasons else None


def _requests(dossier: Dossier) -> list[dict[str, Any]]:
    verdicts = {(row["principal_hash"], row["request_id"]): row for row in dossier.verdicts}
    shown: dict[tuple[str, str], dict[str, Any]] = {}
    for finding in dossier.findings:
        key = finding["principal_hash"], finding["request_id"]
        if key in shown or len(shown) == MOST_NAMED:
            continue
        verdict = verdicts.get(key, {})
        shown[key] = {
            **{name: finding[name] for name in ("request_id", "time", "tenant_id", "principal_hash")},
            "decision": verdict.get("decision", "not in the history"),
            "flagged_by": verdict.get("flagged_by", []),
            "scores": verdict.get("scores", {}),
            "selected_model": verdict.get("selected_model", ""),
            "tier": verdict.get("tier", ""),
        }
    return list(shown.values())


def _thresholds(dossier: Dossier) -> dict[str, float]:
    """All of the detectors that made the findings."""
    detectors = {row["detector"] for row in dossier.findings}
    return {name: value for name, value in dossier.thresholds.items() if name.partition(".")[0] in detectors}
