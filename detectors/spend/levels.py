"""`fleet_spend`, in the fleet lane: ten minutes of prices, of all partitions together, by tenant and of all.

    (a partition's ten minutes) ──► open ── five minutes after the first partition's ──► judged

Callers lie on partitions by their hash, so that a rise of many is everywhere a little, and on none of them enough.
Sums add up exactly: however callers are spread, the test sees what one partition with all of them would see.

Ten minutes are known by their begin in the stream time of the partition that tells of them. Where one lags, or its
broker's clock is off, its ten minutes are judged by themselves, before or after the others': that says less, but
none waits for another.
"""

from collections import Counter
from datetime import UTC, datetime, timedelta

import msgspec

from detectors.detections import Detections
from detectors.keyed import Keyed, compound_key
from detectors.kinds import KINDS
from detectors.processor import OneByOne, Record
from detectors.recent import RecentIds
from detectors.spend import Spend
from detectors.spend.level import Level
from detectors.spend.tally import REST, added
from detectors.streamtime import StreamTime
from detectors.thresholds import Thresholds
from schemas.checkpoints import Marker, check_format
from schemas.codec import InvalidRecord, decode, stable_id
from schemas.verdicts import Finding, PriceLevels

STATE = b"levels/"  # prefix of its state keys, none of which is another part's
MARKER_KEY = STATE + b"marker"
TENANTS = 2_000
GRACE_MS = 300_000  # a partition tells with its first outcome after the ten minutes
MOST_OPEN = 12  # ten minutes at once: lanes that catch up tell of hours within seconds
REMEMBERED = 16_384  # findings: more than a crashed detect lane publishes again
_OPEN = STATE + b"open/"
_ALL = ""  # tenant
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Open(msgspec.Struct, array_like=True, gc=False):
    """Ten minutes that are being added up."""

    first_ms: int  # stream time of the first partition's part
    sums: dict[str, tuple[float, float, float]] = {}


_encode = msgspec.msgpack.Encoder().encode
_decode_open = msgspec.msgpack.Decoder(_Open).decode
_decode_marker = msgspec.msgpack.Decoder(Marker).decode


class Levels(OneByOne):
    """A Processor (detectors/processor.py) over one partition of the findings topic, beside the alerting."""

    def __init__(self, detections: Detections, thresholds: Thresholds, tenants: int = TENANTS) -> None:
        super().__init__()
        self._time = StreamTime()
        self._detections = detections
        self._thresholds = thresholds
        self._most = tenants
        self._levels = Keyed(f"{STATE.decode()}of/", tenants, Level.pack, Level)
        self._open: dict[int, _Open] = {}  # by begin, in order of the first part
        self._recent = RecentIds(REMEMBERED)
        self._dirty: dict[int, None] = {}

    # --- the log, in order

    def _take(self, record: Record) -> None:
        """What is none of ours, or cannot be read, is the alerting's to report."""
        [self.time_ms] = self._time.advance([record.timestamp])
        while self._open and self.time_ms - next(iter(self._open.values())).first_ms >= GRACE_MS:
            self._judge(next(iter(self._open)))
        if record.value and b'"levels":' in record.value:
            try:
                finding = decode(Finding, record)
            except InvalidRecord:
                return
            if finding.levels is not None and finding.kind == "price_levels":
                self._on_levels(finding.finding_id, finding.levels)

    def _on_levels(self, finding_id: str, part: PriceLevels) -> None:
        if not self._recent.add(finding_id):
            return
        held = self._open.setdefault(part.bucket, _Open(self.time_ms))
        for tenant, sums in part.sums.items():
            name = tenant if tenant in held.sums or len(held.sums) < self._most else REST
            held.sums[name] = added(held.sums.get(name), sums)
        self._dirty[part.bucket] = None
        if len(self._open) > MOST_OPEN:
            self._judge(next(iter(self._open)))

    def _judge(self, bucket: int) -> None:
        held = self._open.pop(bucket)
        self._dirty[bucket] = None
        together = (0.0, 0.0, 0.0)
        for tenant, sums in sorted(held.sums.items()):
            together = added(together, sums)
            if tenant != REST and self._alarms(tenant, sums):
                self._say(tenant, bucket)
        if self._alarms(_ALL, together) and len(held.sums) > 1:  # of one tenant alone it has been said
            self._say(_ALL, bucket)

    def _alarms(self, tenant: str, sums: tuple[float, float, float]) -> bool:
        key = compound_key(tenant) if tenant else _ALL
        level = self._levels.get(key) or Level()
        alarms = level.add(*sums, self._thresholds["spend.fleet"])
        self._levels.put(key, level, level.established)
        return alarms

    def _say(self, tenant: str, bucket: int) -> None:
        """A finding of nobody's: neither of a caller nor of a request."""
        threshold = self._thresholds["spend.fleet"]
        finding = Finding(
            finding_id=stable_id("finding", "fleet_spend", tenant, str(bucket), str(self.time_ms)),
            kind="fleet_spend",
            category=KINDS["fleet_spend"],
            severity="info",
            time=_EPOCH + timedelta(milliseconds=self.time_ms),
            labels={},
            detector=Spend.name,
            detector_version=Spend.version,
            tenant_id=tenant,
            score=threshold,
            threshold=threshold,
            threshold_version=self._thresholds.version,
            direction="up",
            stage="level",
            note="Requests of many principals cost more each than their own pasts explain",
        )
        self.counters["findings.spend.fleet_spend"] += 1
        self._out += self._detections.records(finding)

    # --- state

    def waiting(self) -> bool:
        """Whether ten minutes are to be judged when time has passed."""
        return bool(self._open)

    def holds(self) -> dict[str, int]:
        """See `Processor.holds`."""
        return {"state_keys.levels": len(self._levels)}

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """See `Processor.changes`."""
        dirty, self._dirty = self._dirty, {}
        changed = [(key.encode(), value) for key, value in self._levels.changes()]
        changed += [(_open_key(bucket), self._packed(bucket)) for bucket in dirty]
        changed += [(STATE + key, value) for key, value in self._recent.changes()]
        return [*changed, (MARKER_KEY, self._marker())]

    def snapshot(self) -> dict[bytes, bytes]:
        """See `Processor.snapshot`."""
        held = {key.encode(): value for key, value in self._levels.snapshot().items()}
        held |= {_open_key(bucket): _encode(part) for bucket, part in self._open.items()}
        held |= {STATE + key: value for key, value in self._recent.snapshot()}
        return held | {MARKER_KEY: self._marker()}

    def _packed(self, bucket: int) -> bytes | None:
        return _encode(self._open[bucket]) if bucket in self._open else None

    def load(self, key: bytes, value: bytes | None) -> None:
        """See `Processor.load`."""
        if key == MARKER_KEY and value is not None:
            marker = _decode_marker(value)
            check_format(marker)
            self.offset, self.time_ms, self.counters = marker.offset, marker.time_ms, Counter(marker.counters)
            self._time = StreamTime(marker.time_ms, marker.stamp_ms)
        elif key.startswith(_OPEN):
            bucket = int(key.removeprefix(_OPEN))
            self._open.pop(bucket, None)
            if value is not None:
                self._open[bucket] = _decode_open(value)
        elif value is None or not self._recent.load(key.removeprefix(STATE), value):
            self._levels.load(key.decode(), value)

    def loaded(self) -> None:
        """See `Processor.loaded`."""
        self._recent.loaded()
        self._open = dict(sorted(self._open.items(), key=lambda item: (item[1].first_ms, item[0])))

    def _marker(self) -> bytes:
        counters = dict(sorted(self.counters.items()))
        marker = Marker(offset=self.offset, time_ms=self.time_ms, stamp_ms=self._time.stamp_ms, counters=counters)
        return _encode(marker)


def _open_key(bucket: int) -> bytes:
    return b"%s%d" % (_OPEN, bucket)
