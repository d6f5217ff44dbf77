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
from datetime import UTC, datetime, timedelta

import msgspec

from detectors.alerting.agenda import Agenda
from detectors.alerting.episode import Episode
from detectors.alerting.inhibitions import Inhibition, Inhibitions
from detectors.detections import Detection, Detections
from detectors.detections.model import Campaign
from detectors.kinds import fingerprint
from detectors.processor import OneByOne, Output, Record
from detectors.recent import RecentIds
from detectors.streamtime import StreamTime
from detectors.suppressions import Suppressions
from schemas.checkpoints import Marker, check_format
from schemas.codec import TICK_TYPE, InvalidRecord, dead_letter, decode, encode, erasure_in, stable_id
from schemas.erasures import Erasure
from schemas.topics import ALERTS, DEADLETTERS, FINDINGS
from schemas.verdicts import Finding

MARKER_KEY = b"marker"

_EPISODE = b"alert/"
_NEVER = 2**62
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_encode_state = msgspec.msgpack.Encoder().encode
_decode_episode = msgspec.msgpack.Decoder(Episode).decode
_decode_marker = msgspec.msgpack.Decoder(Marker).decode


class Alerting(OneByOne):
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
        super().__init__()
        self._time = StreamTime()
        self._detections = detections
        self._suppressions = suppressions or Suppressions()
        self._refresh_ms = round(refresh_seconds * 1000)
        self._most_pending = most_pending
        self._most_firing = most_firing
        # By fingerprint, each in the order of the last finding: what is evicted is first.
        self._pending: dict[str, Episode] = {}
        self._firing: dict[str, Episode] = {}
        self._agenda = Agenda()
        self._inhibitions = Inhibitions(most_inhibited)
        self._recent = RecentIds(remembered)
        self._dirty: set[str] = set()

    # --- the log, in order

    def _take(self, record: Record) -> None:
        [self.time_ms] = self._time.advance([record.timestamp])
        self._look()
        if not record.value and ("ce_type", TICK_TYPE) in record.headers:
            return
        try:
            if (erasure := erasure_in(record)) is not None:
                self._forget(erasure)
                return
            finding = decode(Finding, record)
            self._on_finding(finding, self._detection_of(finding, record), record.offset)
        except InvalidRecord as error:
            self._dead_letter(error, record)

    def _forget(self, erasure: Erasure) -> None:
        """End what is about an erased principal, and take it out of what is about others too."""
        self.counters["oddities.erased_principal"] += 1
        tenant, principal = erasure.tenant_id, erasure.principal_hash
        for identity, episode in [*self._pending.items(), *self._firing.items()]:
            if (episode.alert.tenant_id, episode.alert.principal_hash) != (tenant, principal):
                episode.forget(tenant, principal)
            elif episode.firing:  # who was told of it is told that it is over
                self._resolve(identity, self.time_ms)
            else:
                self._drop(identity)
            self._dirty.add(identity)

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
            episode = Episode.begin(identity, finding, detection, _time(self.time_ms))
        worse = episode.add(finding, detection)
        episode.last_ms, episode.last_offset = self.time_ms, offset
        episode.alert.last_seen = _time(self.time_ms)
        self._dirty.add(identity)
        if episode.firing:
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
            self._drop(next(iter(self._pending)))

    def _drop(self, identity: str) -> None:
        """Forget a pending alert, unsaid."""
        del self._pending[identity]
        self._agenda.drop(identity)
        self._dirty.add(identity)

    # --- campaigns

    def _tell_members(self, episode: Episode, finding: Finding, campaign: Campaign) -> None:
        """Tell the alerts of this finding's principal, and of all before it once there is a campaign."""
        held = [inhibited.when.span_ms for rule in campaign.inhibits if (inhibited := self._detections.get(rule))]
        again_ms = self.time_ms - min(held, default=0) // 2  # before what was told lapses
        for theirs in episode.members_to_tell(finding, self.time_ms, again_ms):
            self._tell(theirs, episode.alert.alert_id, campaign)

    def _tell(self, finding: Finding, alert_id: str, campaign: Campaign) -> None:
        for rule_id in campaign.inhibits:
            inhibited = self._detections.get(rule_id)
            if inhibited is not None:
                told = inhibited.addressed(finding)
                told.finding_id = stable_id(told.finding_id, alert_id, finding.tenant_id, finding.principal_hash)
                told.campaign = alert_id
                self._out.append(Output(FINDINGS.name, fingerprint(told.labels).encode(), encode(told)))

    def _inhibit(self, identity: str, by: str, detection: Detection, offset: int) -> None:
        """Note that a campaign stands for an alert, for as long as what a member does now may count for it."""
        told = Inhibition(by, self.time_ms + detection.when.span_ms, offset)
        self._inhibitions.tell(identity, told, self.time_ms)
        if (episode := self._firing.get(identity)) and episode.alert.inhibited_by != by:
            self._publish(episode)
            self._schedule(identity)

    # --- stream time

    def _look(self) -> None:
        """Do what is due: forget what was pending, resolve what fired, once it is quiet; publish growth.

        In the order in which each was due, whatever the agenda says (a restart makes another), and whatever growth
        was told before: what is over is told when it ended.
        """
        due = []
        for identity in self._agenda.due(self.time_ms):
            episode = self._live(identity)
            if episode is None:
                continue
            if self._due(episode) <= self.time_ms:
                end_ms = self._quiet_at(episode)
                at = end_ms if end_ms <= self.time_ms else self._grown_at(episode)
                due.append((at, episode.last_offset, identity))
            else:
                self._schedule(identity)
        for _, _, identity in sorted(due):
            self._act(identity)
            self._schedule(identity)

    def _act(self, identity: str) -> None:
        if identity in self._pending:
            self.counters["alert_transitions.lapsed"] += 1
            self._drop(identity)
            return
        episode = self._firing[identity]
        if (end_ms := self._quiet_at(episode)) <= self.time_ms:
            self._resolve(identity, end_ms)
        else:
            self._publish(episode)

    def _schedule(self, identity: str) -> None:
        if (episode := self._live(identity)) is not None:
            self._agenda.put(identity, self._due(episode))

    def _live(self, identity: str) -> Episode | None:
        return self._firing.get(identity) or self._pending.get(identity)

    def _due(self, episode: Episode) -> int:
        """When the episode changes though nothing more comes."""
        return min(self._quiet_at(episode), self._grown_at(episode))

    def _quiet_at(self, episode: Episode) -> int:
        """When it is over: what is pending, when its findings do not count any more."""
        detection = self._detections.get(episode.alert.alertname)
        if detection is None:  # it has been taken out since
            return episode.last_ms
        if episode.firing:
            return episode.last_ms + detection.quiet_ms
        return episode.last_ms + detection.when.span_ms

    def _grown_at(self, episode: Episode) -> int:
        """When growth that was not published yet is due."""
        if not episode.firing or episode.alert.count == episode.told_count:
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
        alert.inhibited_by = self._inhibitions.over(alert.fingerprint, self.time_ms)
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
        records: list[tuple[bytes, bytes | None]] = [(_state_key(name), self._packed(name)) for name in dirty]
        records += self._inhibitions.changes()
        records += self._recent.changes()
        records.append((MARKER_KEY, self._marker()))
        return records

    def snapshot(self) -> dict[bytes, bytes]:
        """See `Processor.snapshot`."""
        live = sorted((*self._pending, *self._firing))
        records = {_state_key(name): self._packed(name) or b"" for name in live}
        records |= dict(self._inhibitions.snapshot())
        return {**records, **dict(self._recent.snapshot()), MARKER_KEY: self._marker()}

    def _packed(self, identity: str) -> bytes | None:
        episode = self._live(identity)
        return _encode_state(episode) if episode else None

    def load(self, key: bytes, value: bytes | None) -> None:
        """See `Processor.load`."""
        if key.startswith(_EPISODE):
            self._load_episode(key.removeprefix(_EPISODE).decode(), value)
        elif self._inhibitions.load(key, value):
            pass
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
        (self._firing if episode.firing else self._pending)[identity] = episode

    def loaded(self) -> None:
        """Bring what was loaded into the order of its expiry."""
        self._recent.loaded()
        self._pending = _in_order(self._pending)
        self._firing = _in_order(self._firing)
        self._inhibitions.loaded()
        self._agenda = Agenda()
        for identity in (*self._pending, *self._firing):
            self._schedule(identity)

    def _marker(self) -> bytes:
        counters = dict(sorted(self.counters.items()))
        return _encode_state(
            Marker(offset=self.offset, time_ms=self.time_ms, stamp_ms=self._time.stamp_ms, counters=counters)
        )


def _in_order(episodes: dict[str, Episode]) -> dict[str, Episode]:
    return dict(sorted(episodes.items(), key=lambda item: item[1].last_offset))


def _state_key(identity: str) -> bytes:
    return _EPISODE + identity.encode()


def _time(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)
