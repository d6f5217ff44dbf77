"""Findings become alerts: one per identity, firing until its stream time has been quiet, told once.

    (no state) ── finding ──► pending ── `fire_count` findings within `fire_span_s` ──► firing
    pending ── quiet ──► (forgotten, unsaid)        firing ── quiet ──► resolved (published, forgotten)

Published are firing, a rise in severity, growth (at most once in `refresh_seconds`), and resolved: a pending
alert is nothing to tell anyone. Findings of one identity share a key, so one partition of the findings topic
owns it.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from heapq import heapify, heappop, heappush

import msgspec

from detectors import distinct
from detectors.kinds import KINDS, Kind, fingerprint
from detectors.processor import Output, Record
from detectors.recent import RecentIds
from schemas.alerts import Alert
from schemas.checkpoints import Marker, check_format
from schemas.codec import TICK_TYPE, InvalidRecord, dead_letter_headers, decode, encode, stable_id
from schemas.topics import ALERTS, DEADLETTERS
from schemas.verdicts import Finding

MARKER_KEY = b"marker"
MOST_EVIDENCE = 50  # request and finding ids kept per alert: the first ones
SEVERITIES = ("info", "warning", "critical")

_EPISODE = b"alert/"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What an alert says only while all its findings say the same.
_COMMON = ("tenant_id", "principal_hash", "router_name", "direction", "trigger_id", "window")


class Episode(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """An alert from its first finding to its end."""

    alert: Alert
    last_ms: int = 0  # stream time of the last finding
    last_offset: int = 0  # of the last finding: the order of expiry
    arrivals: list[int] = []  # stream times of the last findings, while pending
    told_ms: int = 0
    told_count: int = 0
    principals: list[int] = []  # sketches (detectors/distinct.py)
    tenants: list[int] = []


_encode_state = msgspec.msgpack.Encoder().encode
_decode_episode = msgspec.msgpack.Decoder(Episode).decode
_decode_marker = msgspec.msgpack.Decoder(Marker).decode


class Alerting:
    """A Processor (detectors/processor.py) over one partition of the findings topic."""

    def __init__(
        self,
        quiet_seconds: float = 900.0,
        refresh_seconds: float = 60.0,
        *,
        most_pending: int = 20_000,
        most_firing: int = 10_000,
        remembered: int = 65_536,
    ) -> None:
        """Seconds are of stream time. `remembered` finding ids: more than a crashed detect lane publishes again."""
        self.offset = 0
        self.time_ms = 0
        self.counters: Counter[str] = Counter()
        self._quiet_ms = round(quiet_seconds * 1000)
        self._refresh_ms = round(refresh_seconds * 1000)
        self._most_pending = most_pending
        self._most_firing = most_firing
        # By fingerprint, each in the order of the last finding: what expires first, or is evicted, is first.
        self._pending: dict[str, Episode] = {}
        self._firing: dict[str, Episode] = {}
        self._grown: list[tuple[int, str]] = []  # heap of (when due, fingerprint): growth not published yet
        self._recent = RecentIds(remembered)
        self._dirty: set[str] = set()
        self._out: list[Output] = []

    # --- the log, in order

    def apply(self, records: Sequence[Record]) -> list[Output]:
        """Take findings and ticks; see `Processor.apply`."""
        for record in records:
            if record.offset < self.offset:
                continue
            self.offset = record.offset + 1
            self.time_ms = max(self.time_ms, record.timestamp)
            self._expire()
            self._refresh()
            if not record.value and ("ce_type", TICK_TYPE) in record.headers:
                continue
            try:
                finding, kind = _read(record)
            except InvalidRecord as error:
                self._dead_letter(error, record)
                continue
            self._on_finding(finding, kind, record.offset)
        out, self._out = self._out, []
        return out

    def _dead_letter(self, error: InvalidRecord, record: Record) -> None:
        self.counters[f"dead_letters.alert.{error.reason}"] += 1
        headers = dead_letter_headers(error, record, "alert")
        self._out.append(
            Output(DEADLETTERS.name, record.key or b"", record.value or b"", headers, record.partition)
        )

    def _on_finding(self, finding: Finding, kind: Kind, offset: int) -> None:
        if not kind.pages:
            self.counters["oddities.context_finding"] += 1
            return
        if not self._recent.add(finding.finding_id):
            self.counters["oddities.duplicate_finding"] += 1
            return
        identity = fingerprint(finding.labels)
        episode = self._firing.pop(identity, None) or self._pending.pop(identity, None)
        if episode is None:
            episode = Episode(alert=self._new_alert(identity, finding, kind))
        raised = _add(episode, finding)
        episode.last_ms, episode.last_offset = self.time_ms, offset
        episode.alert.last_seen = _time(self.time_ms)
        self._dirty.add(identity)
        if episode.alert.status == "firing":
            self._firing[identity] = episode
            if raised:
                self._publish(episode)
            elif episode.alert.count == episode.told_count + 1:
                heappush(self._grown, (episode.told_ms + self._refresh_ms, identity))
                self._refresh()
        elif self._may_fire(episode, kind):
            self._fire(identity, episode)
        else:
            self._hold(identity, episode)

    def _new_alert(self, identity: str, finding: Finding, kind: Kind) -> Alert:
        now = _time(self.time_ms)
        return Alert(
            alert_id=stable_id(identity, now.isoformat()),
            fingerprint=identity,
            alertname=kind.name,
            category=kind.category,
            severity=finding.severity,
            status="pending",
            labels=finding.labels,
            starts_at=now,
            last_seen=now,
            time=now,
            first_request_id=finding.request_id or next(iter(finding.request_ids), ""),
            mitre_atlas=list(kind.mitre_atlas),
            owasp=list(kind.owasp),
            summary=kind.summary,
            **{name: getattr(finding, name) for name in _COMMON},
        )

    def _may_fire(self, episode: Episode, kind: Kind) -> bool:
        episode.arrivals = [*episode.arrivals, self.time_ms][-kind.fire_count :]
        within = self.time_ms - episode.arrivals[0] <= kind.fire_span_s * 1000
        return len(episode.arrivals) == kind.fire_count and within

    def _fire(self, identity: str, episode: Episode) -> None:
        self.counters["alert_transitions.firing"] += 1
        episode.arrivals = []
        episode.alert.status = "firing"
        self._firing[identity] = episode
        self._publish(episode)
        if len(self._firing) > self._most_firing:
            self.counters["state_evictions.firing_alerts"] += 1
            self._resolve(next(iter(self._firing)), self.time_ms)

    def _hold(self, identity: str, episode: Episode) -> None:
        self._pending[identity] = episode
        if len(self._pending) > self._most_pending:
            self.counters["state_evictions.pending_alerts"] += 1
            oldest = next(iter(self._pending))
            del self._pending[oldest]
            self._dirty.add(oldest)

    # --- stream time

    def _expire(self) -> None:
        """Forget what was pending, and resolve what was firing, and has been quiet."""
        limit = self.time_ms - self._quiet_ms
        while self._pending:
            identity, episode = next(iter(self._pending.items()))
            if episode.last_ms > limit:
                break
            self.counters["alert_transitions.lapsed"] += 1
            del self._pending[identity]
            self._dirty.add(identity)
        while self._firing:
            identity, episode = next(iter(self._firing.items()))
            if episode.last_ms > limit:
                break
            self._resolve(identity, episode.last_ms + self._quiet_ms)

    def _resolve(self, identity: str, end_ms: int) -> None:
        self.counters["alert_transitions.resolved"] += 1
        episode = self._firing.pop(identity)
        episode.alert.status = "resolved"
        episode.alert.ends_at = _time(end_ms)
        self._publish(episode)

    def _refresh(self) -> None:
        """Publish growth that is due."""
        while self._grown and self._grown[0][0] <= self.time_ms:
            due, identity = heappop(self._grown)
            episode = self._firing.get(identity)
            # An entry is stale when the alert has resolved, or was published since for another cause.
            if episode and episode.alert.count > episode.told_count and due == self._due(episode):
                self._publish(episode)

    def _due(self, episode: Episode) -> int:
        return episode.told_ms + self._refresh_ms

    def _publish(self, episode: Episode) -> None:
        alert = episode.alert
        alert.time = _time(self.time_ms)
        alert.sequence += 1
        alert.principals = distinct.count(episode.principals)
        alert.tenants = distinct.count(episode.tenants)
        episode.told_ms, episode.told_count = self.time_ms, alert.count
        self._dirty.add(alert.fingerprint)
        self._out.append(Output(ALERTS.name, alert.fingerprint.encode(), encode(alert)))

    # --- state

    def waiting(self) -> bool:
        """Whether some alert is to resolve or to be forgotten when time has passed."""
        return bool(self._pending or self._firing)

    @property
    def firing(self) -> int:
        """How many alerts are firing."""
        return len(self._firing)

    def holds(self) -> dict[str, int]:
        """See `Processor.holds`."""
        return {"alerts_firing": len(self._firing), "state_keys.pending_alerts": len(self._pending)}

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """See `Processor.changes`."""
        dirty, self._dirty = sorted(self._dirty), set()
        records: list[tuple[bytes, bytes | None]] = []
        for identity in dirty:
            episode = self._firing.get(identity) or self._pending.get(identity)
            records.append((_state_key(identity), _encode_state(episode) if episode else None))
        records += self._recent.changes()
        records.append((MARKER_KEY, self._marker()))
        return records

    def snapshot(self) -> dict[bytes, bytes]:
        """See `Processor.snapshot`."""
        live = {**self._pending, **self._firing}
        records = {_state_key(identity): _encode_state(live[identity]) for identity in sorted(live)}
        return {**records, **dict(self._recent.snapshot()), MARKER_KEY: self._marker()}

    def load(self, key: bytes, value: bytes | None) -> None:
        """See `Processor.load`."""
        if key.startswith(_EPISODE):
            self._load_episode(key.removeprefix(_EPISODE).decode(), value)
        elif value is not None and not self._recent.load(key, value):
            if key != MARKER_KEY:
                raise ValueError("a state record that is none of the alerting's")
            marker = _decode_marker(value)
            check_format(marker)
            self.offset, self.time_ms = marker.offset, marker.time_ms
            self.counters = Counter(marker.counters)

    def _load_episode(self, identity: str, value: bytes | None) -> None:
        self._pending.pop(identity, None)
        self._firing.pop(identity, None)
        if value is None:
            return
        episode = _decode_episode(value)
        (self._firing if episode.alert.status == "firing" else self._pending)[identity] = episode

    def loaded(self) -> None:
        """Bring what was loaded into the order of its expiry."""
        self._recent.loaded()
        self._pending = _in_order(self._pending)
        self._firing = _in_order(self._firing)
        self._grown = [
            (self._due(episode), identity)
            for identity, episode in self._firing.items()
            if episode.alert.count > episode.told_count
        ]
        heapify(self._grown)

    def _marker(self) -> bytes:
        counters = dict(sorted(self.counters.items()))
        return _encode_state(Marker(offset=self.offset, time_ms=self.time_ms, counters=counters))


def _read(record: Record) -> tuple[Finding, Kind]:
    finding = decode(Finding, record)
    kind = KINDS.get(finding.kind)
    if kind is None:
        raise InvalidRecord("unknown_type", record, "$.kind", "no such kind of finding")
    return finding, kind


def _add(episode: Episode, finding: Finding) -> bool:
    """Take a finding into an alert's numbers and evidence; whether it raised the severity."""
    alert = episode.alert
    alert.count += 1
    distinct.add(episode.tenants, finding.tenant_id)
    distinct.add(episode.principals, f"{finding.tenant_id}\0{finding.principal_hash}")
    for name in _COMMON:
        if getattr(alert, name) != getattr(finding, name):
            setattr(alert, name, "")
    alert.detector, alert.detector_version = finding.detector, finding.detector_version
    alert.catalogue_version = max(alert.catalogue_version, finding.catalogue_version)
    if alert.count == 1 or finding.score > alert.score:
        alert.score, alert.threshold = finding.score, finding.threshold
        alert.threshold_version = finding.threshold_version
    if finding.extra_cost_usd is not None:
        alert.est_cost_usd = (alert.est_cost_usd or 0.0) + finding.extra_cost_usd
    if finding.event_time is not None:
        event_time = finding.event_time.astimezone(UTC)
        alert.first_event_time = min(alert.first_event_time or event_time, event_time)
    _keep_first(alert.finding_ids, finding.finding_id)
    for request_id in (finding.request_id, *finding.request_ids):
        _keep_first(alert.request_ids, request_id)
    raised = SEVERITIES.index(finding.severity) > SEVERITIES.index(alert.severity)
    if raised:
        alert.severity = finding.severity
    return raised


def _keep_first(kept: list[str], name: str) -> None:
    if name and len(kept) < MOST_EVIDENCE and name not in kept:
        kept.append(name)


def _in_order(episodes: dict[str, Episode]) -> dict[str, Episode]:
    return dict(sorted(episodes.items(), key=lambda item: item[1].last_offset))


def _state_key(identity: str) -> bytes:
    return _EPISODE + identity.encode()


def _time(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)
