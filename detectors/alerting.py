"""Findings become alerts: one per identity, firing until its stream time has been quiet, told once.

    (no state) ── finding ──► pending ── the detection's condition ──► firing
    pending ── quiet ──► (forgotten, unsaid)        firing ── quiet ──► resolved (published, forgotten)

What fires and when, and how long quiet is, are the detection's (detectors/detections). Where it takes several
findings to fire, it takes one to go on firing: an alert does not flap. Published are firing, a rise in severity,
growth (at most once in `refresh_seconds`), and resolved: a pending alert is nothing to tell anyone. Findings of one
identity share a key, so one partition of the findings topic owns it.

An alert of several principals may be a campaign (the detection's `Campaign`). It tells the alerts of its members,
in whatever partition they are, by findings of its own with `campaign` in them: so what inhibits an alert is in that
alert's own log. An alert that is inhibited, or under a suppression, is published as any other, and says by what.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from heapq import heapify, heappop, heappush

import msgspec

from detectors import distinct
from detectors.detections import Detection, Detections
from detectors.detections.correlation import Seen
from detectors.detections.model import SEVERITIES, Campaign
from detectors.kinds import fingerprint
from detectors.processor import Output, Record
from detectors.recent import RecentIds
from detectors.streamtime import StreamTime
from detectors.suppressions import Suppressions
from schemas.alerts import Alert
from schemas.checkpoints import Marker, check_format
from schemas.codec import TICK_TYPE, InvalidRecord, dead_letter, decode, encode, erasure_in, stable_id
from schemas.erasures import Erasure
from schemas.topics import ALERTS, DEADLETTERS, FINDINGS
from schemas.verdicts import Finding

MARKER_KEY = b"marker"
MOST_EVIDENCE = 50  # request and finding ids kept per alert: the first ones
MOST_VALUES = 50  # of each summary attribute
MOST_PRICED = 64  # requests whose cost is known to be counted: outcomes come soon after verdicts
MOST_MEMBERS = 200  # of a campaign, remembered so as not to tell each of them at every finding

_EPISODE = b"alert/"
_INHIBITION = b"inhibition/"
_NEVER = 2**62
_NEVER_TOLD = -1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What an alert says only while all its findings say the same.
_COMMON = ("tenant_id", "principal_hash", "router_name", "direction", "trigger_id", "window")


class Episode(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """An alert from its first finding to its end."""

    alert: Alert
    last_ms: int = 0  # stream time of the last finding
    last_offset: int = 0  # of the last finding: the order of expiry
    seen: Seen = []  # what the correlation remembers, while pending
    priced: list[int] = []  # digests of the last requests whose cost is in it
    members: dict[str, int] = {}  # of a campaign, by principal: when its alerts were told; the last ones
    told_ms: int = 0
    told_count: int = 0
    principals: list[int] = []  # sketches (detectors/distinct.py)
    tenants: list[int] = []


class Inhibition(msgspec.Struct, gc=False):
    """What a campaign has told an alert, or one to come."""

    by: str
    until_ms: int
    offset: int  # of the telling: the order of eviction


_encode_state = msgspec.msgpack.Encoder().encode
_decode_episode = msgspec.msgpack.Decoder(Episode).decode
_decode_inhibition = msgspec.msgpack.Decoder(Inhibition).decode
_decode_marker = msgspec.msgpack.Decoder(Marker).decode


class Alerting:
    """A Processor (detectors/processor.py) over one partition of the findings topic."""

    def __init__(
        self,
        detections: Detections,
        *,
        suppressions: Suppressions | None = None,
        refresh_seconds: float = 60.0,
        most_pending: int = 20_000,
        most_firing: int = 10_000,
        most_inhibited: int = 20_000,
        remembered: int = 65_536,
    ) -> None:
        """Seconds are of stream time. `remembered` finding ids: more than a crashed detect lane publishes again."""
        self.offset = 0
        self.time_ms = 0
        self._time = StreamTime()
        self.counters: Counter[str] = Counter()
        self._detections = detections
        self._suppressions = suppressions or Suppressions()
        self._refresh_ms = round(refresh_seconds * 1000)
        self._most_pending = most_pending
        self._most_firing = most_firing
        self._most_inhibited = most_inhibited
        # By fingerprint, each in the order of the last finding: what is evicted is first.
        self._pending: dict[str, Episode] = {}
        self._firing: dict[str, Episode] = {}
        self._inhibitions: dict[str, Inhibition] = {}  # by fingerprint, in the order of the last telling
        # When each is to be looked at again: a heap, of which only the times in `_looks` count. What is put off is
        # put off when its time comes, so that a finding costs no entry.
        self._agenda: list[tuple[int, str]] = []
        self._looks: dict[str, int] = {}
        self._recent = RecentIds(remembered)
        self._dirty: set[bytes] = set()
        self._out: list[Output] = []

    # --- the log, in order

    def apply(self, records: Sequence[Record]) -> list[Output]:
        """Take findings and ticks; see `Processor.apply`."""
        for record in records:
            if record.offset < self.offset:
                continue
            self.offset = record.offset + 1
            [self.time_ms] = self._time.advance([record.timestamp])
            self._look()
            if not record.value and ("ce_type", TICK_TYPE) in record.headers:
                continue
            try:
                if (erasure := erasure_in(record)) is not None:
                    self._forget(erasure)
                    continue
                finding = decode(Finding, record)
                self._on_finding(finding, self._detection_of(finding, record), record.offset)
            except InvalidRecord as error:
                self._dead_letter(error, record)
        out, self._out = self._out, []
        return out

    def _forget(self, erasure: Erasure) -> None:
        """End what is about an erased principal, and take it out of what is about others too."""
        self.counters["oddities.erased_principal"] += 1
        tenant, principal = erasure.tenant_id, erasure.principal_hash
        for identity in (*self._pending, *self._firing):
            episode = self._live(identity)
            if episode is None:
                continue
            alert = episode.alert
            named = alert.attributes.get("principal_hash", [])
            if (alert.tenant_id, alert.principal_hash) == (tenant, principal):
                if alert.status == "firing":  # who was told of it is told that it is over
                    self._resolve(identity, self.time_ms)
                self._pending.pop(identity, None)
                self._looks.pop(identity, None)
            else:
                if principal in named:
                    named.remove(principal)
                episode.members.pop(_member(tenant, principal), None)
            self._dirty.add(_state_key(identity))

    def _dead_letter(self, error: InvalidRecord, record: Record) -> None:
        self.counters[f"dead_letters.alert.{error.reason}"] += 1
        self._out.append(Output(DEADLETTERS.name, *dead_letter(error, record, "alert"), record.partition))

    def _detection_of(self, finding: Finding, record: Record) -> Detection | None:
        """The one that the finding is addressed to; None: to none, it is history's only."""
        if not finding.labels:
            return None
        detection = self._detections.get(finding.labels.get("alertname", ""))
        if detection is None:
            raise InvalidRecord("unknown_type", record, "$.labels.alertname", "no such detection here")
        return detection

    def _on_finding(self, finding: Finding, detection: Detection | None, offset: int) -> None:
        if detection is None:
            self.counters["oddities.context_finding"] += 1
            return
        if not self._recent.add(finding.finding_id):
            self.counters["oddities.duplicate_finding"] += 1
            return
        identity = fingerprint(finding.labels)
        if finding.campaign:
            self._inhibit(identity, finding.campaign, detection, offset)
            return
        episode = self._firing.pop(identity, None) or self._pending.pop(identity, None)
        if episode is None:
            episode = Episode(alert=self._new_alert(identity, finding, detection))
        worse = _add(episode, finding, detection)
        episode.last_ms, episode.last_offset = self.time_ms, offset
        episode.alert.last_seen = _time(self.time_ms)
        self._dirty.add(_state_key(identity))
        if episode.alert.status == "firing":
            self._firing[identity] = episode
            if worse or self._grown_at(episode) <= self.time_ms:
                self._publish(episode)
        else:
            kinds, when = detection.log_types, detection.when
            episode.seen, fires = when.advance(kinds, episode.seen, finding, self.time_ms)
            self._fire(identity, episode) if fires else self._hold(identity, episode)
        self._schedule(identity)
        if detection.campaign:
            self._tell_members(episode, finding, detection.campaign)

    def _new_alert(self, identity: str, finding: Finding, detection: Detection) -> Alert:
        now = _time(self.time_ms)
        return Alert(
            alert_id=stable_id(identity, now.isoformat()),
            fingerprint=identity,
            alertname=detection.rule_id,
            category=detection.category,
            severity=finding.severity,
            status="pending",
            labels=finding.labels,
            starts_at=now,
            last_seen=now,
            time=now,
            first_request_id=finding.request_id or next(iter(finding.request_ids), ""),
            mitre_atlas=list(detection.reports.mitre_atlas),
            owasp=list(detection.reports.owasp),
            runbook_url=detection.reference,
            summary=detection.display_name,
            **{name: getattr(finding, name) for name in _COMMON},
        )

    def _fire(self, identity: str, episode: Episode) -> None:
        self.counters["alert_transitions.firing"] += 1
        episode.seen = []
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
            self._looks.pop(oldest, None)
            self._dirty.add(_state_key(oldest))

    # --- campaigns

    def _tell_members(self, episode: Episode, finding: Finding, campaign: Campaign) -> None:
        """Tell the alerts of this finding's principal, and of all before it once there is a campaign."""
        member = _member(finding.tenant_id, finding.principal_hash)
        told_ms = episode.members.pop(member, _NEVER_TOLD)
        episode.members[member] = told_ms
        if len(episode.members) > MOST_MEMBERS:
            del episode.members[next(iter(episode.members))]
        if episode.alert.status != "firing" or not episode.alert.campaign:
            return
        held = [inhibited.quiet_ms for rule in campaign.inhibits if (inhibited := self._detections.get(rule))]
        again_ms = self.time_ms - min(held, default=0) // 2  # before what was told lapses
        for name, told_ms in episode.members.items():
            if told_ms == _NEVER_TOLD or (name == member and told_ms <= again_ms):
                episode.members[name] = self.time_ms
                self._tell(finding if name == member else _of(name, finding), episode.alert.alert_id, campaign)

    def _tell(self, finding: Finding, alert_id: str, campaign: Campaign) -> None:
        for rule_id in campaign.inhibits:
            inhibited = self._detections.get(rule_id)
            if inhibited is not None:
                told = inhibited.addressed(finding)
                told.finding_id = stable_id(told.finding_id, alert_id, finding.tenant_id, finding.principal_hash)
                told.campaign = alert_id
                self._out.append(Output(FINDINGS.name, fingerprint(told.labels).encode(), encode(told)))

    def _inhibit(self, identity: str, by: str, detection: Detection, offset: int) -> None:
        """Note that a campaign stands for an alert, for as long as that alert would be quiet."""
        self._inhibitions.pop(identity, None)
        self._inhibitions[identity] = Inhibition(by, self.time_ms + detection.quiet_ms, offset)
        self._dirty.add(_INHIBITION + identity.encode())
        while self._inhibitions:
            first, oldest = next(iter(self._inhibitions.items()))
            if oldest.until_ms > self.time_ms and len(self._inhibitions) <= self._most_inhibited:
                break
            del self._inhibitions[first]
            self._dirty.add(_INHIBITION + first.encode())
        if (episode := self._firing.get(identity)) and episode.alert.inhibited_by != by:
            self._publish(episode)
            self._schedule(identity)

    def _inhibited_by(self, identity: str) -> str:
        inhibition = self._inhibitions.get(identity)
        return inhibition.by if inhibition and inhibition.until_ms > self.time_ms else ""

    # --- stream time

    def _look(self) -> None:
        """Do what is due: forget what was pending, resolve what fired, once it is quiet; publish growth.

        In the order in which it was due, whatever the agenda says: a restart makes another agenda.
        """
        due = []
        while self._agenda and self._agenda[0][0] <= self.time_ms:
            at, identity = heappop(self._agenda)
            if self._looks.get(identity) != at:
                continue
            del self._looks[identity]
            episode = self._live(identity)
            if episode is None:
                continue
            if (at := self._due(episode)) <= self.time_ms:
                due.append((at, episode.last_offset, identity))
            else:
                self._schedule(identity)
        for _, _, identity in sorted(due):
            self._act(identity)
            self._schedule(identity)

    def _act(self, identity: str) -> None:
        if (episode := self._pending.get(identity)) is not None:
            self.counters["alert_transitions.lapsed"] += 1
            del self._pending[identity]
            self._dirty.add(_state_key(identity))
            return
        episode = self._firing[identity]
        if (end_ms := self._quiet_at(episode)) <= self.time_ms:
            self._resolve(identity, end_ms)
        else:
            self._publish(episode)

    def _schedule(self, identity: str) -> None:
        episode = self._live(identity)
        if episode is None:
            return
        at = self._due(episode)
        if at < self._looks.get(identity, _NEVER):
            self._looks[identity] = at
            heappush(self._agenda, (at, identity))
        if len(self._agenda) > 2 * len(self._looks) + 1_000:  # of what was evicted, or put forward
            self._agenda = [(at, identity) for identity, at in self._looks.items()]
            heapify(self._agenda)

    def _live(self, identity: str) -> Episode | None:
        return self._firing.get(identity) or self._pending.get(identity)

    def _due(self, episode: Episode) -> int:
        """When the episode changes though nothing more comes."""
        return min(self._quiet_at(episode), self._grown_at(episode))

    def _quiet_at(self, episode: Episode) -> int:
        """When it is over. What is pending is kept for as long as it may count."""
        detection = self._detections.get(episode.alert.alertname)
        if detection is None:  # it has been taken out since
            return episode.last_ms
        if episode.alert.status == "firing":
            return episode.last_ms + detection.quiet_ms
        return episode.last_ms + max(detection.quiet_ms, detection.when.span_ms)

    def _grown_at(self, episode: Episode) -> int:
        """When growth that was not published yet is due."""
        if episode.alert.status != "firing" or episode.alert.count == episode.told_count:
            return _NEVER
        return episode.told_ms + self._refresh_ms

    def _resolve(self, identity: str, end_ms: int) -> None:
        self.counters["alert_transitions.resolved"] += 1
        episode = self._firing.pop(identity)
        episode.alert.status = "resolved"
        episode.alert.ends_at = _time(end_ms)
        self._publish(episode)

    def _publish(self, episode: Episode) -> None:
        alert = episode.alert
        alert.time = _time(self.time_ms)
        alert.sequence += 1
        alert.suppressed_by = self._suppressions.over(alert.labels, self.time_ms)
        alert.inhibited_by = self._inhibited_by(alert.fingerprint)
        episode.told_ms, episode.told_count = self.time_ms, alert.count
        self._dirty.add(_state_key(alert.fingerprint))
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
        records = [(key, self._packed(key)) for key in dirty]
        records += self._recent.changes()
        records.append((MARKER_KEY, self._marker()))
        return records

    def snapshot(self) -> dict[bytes, bytes]:
        """See `Processor.snapshot`."""
        keys = [_state_key(identity) for identity in sorted((*self._pending, *self._firing))]
        keys += [_INHIBITION + identity.encode() for identity in sorted(self._inhibitions)]
        records = {key: self._packed(key) or b"" for key in keys}
        return {**records, **dict(self._recent.snapshot()), MARKER_KEY: self._marker()}

    def _packed(self, key: bytes) -> bytes | None:
        if key.startswith(_INHIBITION):
            inhibition = self._inhibitions.get(key.removeprefix(_INHIBITION).decode())
            return _encode_state(inhibition) if inhibition else None
        episode = self._live(key.removeprefix(_EPISODE).decode())
        return _encode_state(episode) if episode else None

    def load(self, key: bytes, value: bytes | None) -> None:
        """See `Processor.load`."""
        if key.startswith(_EPISODE):
            self._load_episode(key.removeprefix(_EPISODE).decode(), value)
        elif key.startswith(_INHIBITION):
            identity = key.removeprefix(_INHIBITION).decode()
            self._inhibitions.pop(identity, None)
            if value is not None:
                self._inhibitions[identity] = _decode_inhibition(value)
        elif value is not None and not self._recent.load(key, value):
            if key != MARKER_KEY:
                raise ValueError("a state record that is none of the alerting's")
            marker = _decode_marker(value)
            check_format(marker)
            self.offset, self.time_ms = marker.offset, marker.time_ms
            self._time = StreamTime(marker.time_ms, marker.stamp_ms)
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
        told = sorted(self._inhibitions.items(), key=lambda item: item[1].offset)
        self._inhibitions = dict(told)
        self._agenda, self._looks = [], {}
        for identity in (*self._pending, *self._firing):
            self._schedule(identity)

    def _marker(self) -> bytes:
        counters = dict(sorted(self.counters.items()))
        return _encode_state(
            Marker(offset=self.offset, time_ms=self.time_ms, stamp_ms=self._time.stamp_ms, counters=counters)
        )


def _add(episode: Episode, finding: Finding, detection: Detection) -> bool:
    """Take a finding into an alert's numbers and evidence; whether it is worse now: graver, or a campaign."""
    alert = episode.alert
    alert.count += 1
    distinct.add(episode.tenants, finding.tenant_id)
    distinct.add(episode.principals, _member(finding.tenant_id, finding.principal_hash))
    alert.principals = distinct.count(episode.principals)
    alert.tenants = distinct.count(episode.tenants)
    for name in _COMMON:
        if getattr(alert, name) != getattr(finding, name):
            setattr(alert, name, "")
    alert.detector, alert.detector_version = finding.detector, finding.detector_version
    alert.catalogue_version = max(alert.catalogue_version, finding.catalogue_version)
    if alert.count == 1 or finding.score > alert.score:
        alert.score, alert.threshold = finding.score, finding.threshold
        alert.threshold_version = finding.threshold_version
    if finding.extra_cost_usd is not None:
        _add_cost(episode, finding.request_id, finding.extra_cost_usd)
    if finding.event_time is not None:
        event_time = finding.event_time.astimezone(UTC)
        alert.first_event_time = min(alert.first_event_time or event_time, event_time)
    _keep_first(alert.finding_ids, finding.finding_id, MOST_EVIDENCE)
    for request_id in (finding.request_id, *finding.request_ids):
        _keep_first(alert.request_ids, request_id, MOST_EVIDENCE)
    for name in detection.summary_attributes:
        _keep_first(alert.attributes.setdefault(name, []), str(getattr(finding, name)), MOST_VALUES)
    before = alert.campaign, SEVERITIES.index(alert.severity)
    alert.campaign = detection.campaign is not None and alert.principals >= detection.campaign.members
    alert.severity = max(alert.severity, finding.severity, detection.severity_of(alert), key=SEVERITIES.index)
    return (alert.campaign, SEVERITIES.index(alert.severity)) != before


def _add_cost(episode: Episode, request_id: str, extra_usd: float) -> None:
    """Count a request's extra cost once: what was found at its verdict may be found again at its outcome."""
    counted = distinct.digest(request_id)
    if counted not in episode.priced:
        episode.priced = [*episode.priced, counted][-MOST_PRICED:]
        episode.alert.est_cost_usd = (episode.alert.est_cost_usd or 0.0) + extra_usd


def _member(tenant: str, principal: str) -> str:
    return f"{tenant}\0{principal}"


def _of(member: str, finding: Finding) -> Finding:
    """The finding as another member's: without what is this one's request."""
    tenant, _, principal = member.partition("\0")
    return msgspec.structs.replace(
        finding, tenant_id=tenant, principal_hash=principal, request_id="", request_ids=[], event_time=None
    )


def _keep_first(kept: list[str], name: str, most: int) -> None:
    if name and len(kept) < most and name not in kept:
        kept.append(name)


def _in_order(episodes: dict[str, Episode]) -> dict[str, Episode]:
    return dict(sorted(episodes.items(), key=lambda item: item[1].last_offset))


def _state_key(identity: str) -> bytes:
    return _EPISODE + identity.encode()


def _time(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)
