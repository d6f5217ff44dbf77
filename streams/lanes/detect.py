"""The detect lane: events to verdicts and findings."""

from pathlib import Path

import msgspec

from detectors.detections import Detections
from detectors.judge import Judge, JudgeLimits
from detectors.novelty import artefact
from detectors.panel import PromptPanel, build_panel
from detectors.registry import stream_detectors
from detectors.thresholds import Thresholds
from detectors.tickets import Sampling, Tickets, read_canaries
from detectors.training import sentence_transformer_path
from detectors.triggers.transformer import Transformer
from schemas.events import PROMPT_CAP_CHARS
from schemas.topics import CHECKPOINTS, EVENTS
from streams.custody import rules
from streams.lanespec import LaneSpec
from streams.replay import FileRecord
from streams.settings import Detect, Feedback, Settings


def panel_of(settings: Detect) -> PromptPanel:
    """The prompt panel as the settings want it. With a budget for the second stage torch is imported, only then.

    Raises:
        SettingsError: custody's rule file is not one.
    """
    model = Path(settings.novelty_model) if settings.novelty_model else artefact.PATH
    second_stage = Transformer(sentence_transformer_path()) if settings.transformer_per_second else None
    return build_panel(
        Thresholds(), second_stage=second_stage, novelty_model=model, rules=rules(settings),
        window_text=settings.window_text,
    )  # fmt: skip


def limits_of(settings: Detect) -> JudgeLimits:
    """The judge's bounds as the settings want them."""
    return JudgeLimits(
        join_grace_ms=round(settings.join_grace_seconds * 1000),
        outcome_ttl_ms=round(settings.outcome_ttl_seconds * 1000),
        transformer_per_second=settings.transformer_per_second,
    )


def sampling(feedback: Feedback) -> Sampling | None:
    """How audit tickets are drawn; None: without a key they are not.

    Raises:
        ValueError: the file of canaries holds something else.
        OSError: it cannot be read.
    """
    if not feedback.key:
        return None
    return Sampling(
        key=feedback.key,
        key_id=feedback.key_id,
        share=feedback.audit_share,
        period_ms=round(feedback.audit_period_seconds * 1000),
        per_day=feedback.audit_per_day,
        ticket_ms=round(feedback.ticket_days * 86_400_000),
        canaries=read_canaries(Path(feedback.canaries)) if feedback.canaries else (),
        canary_share=feedback.canary_share,
    )


def spec(settings: Settings, panel: PromptPanel, detections: Detections) -> LaneSpec:
    """The lane as the settings want it; all partitions of a worker share the panel."""
    detect, limits = settings.detect, limits_of(settings.detect)
    draw = sampling(settings.feedback)

    def make(partition: int) -> Judge:
        tickets = Tickets(draw, panel.thresholds) if draw else None
        return Judge(panel, stream_detectors(panel.thresholds, panel.rules), limits, partition, detections, tickets)

    return LaneSpec(
        name="detect",
        source=EVENTS,
        checkpoints=CHECKPOINTS,
        group=detect.group,
        make=make,
        checkpoint_seconds=detect.checkpoint_seconds,
        checkpoint_events=detect.checkpoint_events,
        tick_seconds=min(1.0, detect.join_grace_seconds / 2),
        dead_letter_max_ratio=detect.dead_letter_max_ratio,
        dead_letter_min_count=detect.dead_letter_min_count,
        session_timeout_ms=round(settings.kafka.session_seconds * 1000),
        instance_id=settings.kafka.instance_id or None,
    )


def warm_up(spec: LaneSpec) -> None:
    """Judge one request with its route and outcome, for nothing: compiles what the first would wait for."""
    common = {"request_id": "0", "tenant_id": "0", "principal_hash": "0", "event_time": "1970-01-01T00:00:00Z"}
    text = "a first prompt " * (PROMPT_CAP_CHARS // 10)  # long ones go another way
    events = (
        {"event_type": "request", "event_id": "0", "prompt_text": text, "prompt_chars": len(text)},
        {"event_type": "route", "event_id": "1", "selected_model": "0", "difficulty_score": 0.5, "tier_rank": 0},
        {"event_type": "outcome", "event_id": "2", "cost_usd": 0.0},
    )
    values = [msgspec.json.encode({**common, **event}) for event in events]
    spec.make(0).apply([FileRecord(EVENTS.name, at, 0, value) for at, value in enumerate(values)])
