"""The detect lane's partitions in one process: each caller on one, ticks on all, findings in order of time."""

from collections import defaultdict
from collections.abc import Sequence

from detectors.alerting import Alerting
from detectors.detections import shipped
from detectors.processor import Output, Record
from loadtests.partitions import Partitions
from schemas.codec import encode
from streams.replay import replay
from tests.factories import NOON_MS, outcome, request, route


class Sees:
    """A partition that says of its records when they were, in a finding each; ticks too."""

    def __init__(self, partition: int) -> None:
        self.seen: list[Record] = []
        self.partition = partition

    def apply(self, records: Sequence[Record]) -> list[Output]:
        self.seen += records
        return [Output("seen", b"%d" % self.partition, b"%d" % record.offset) for record in records]


def test_callers_stay_on_a_partition_and_ticks_reach_all() -> None:
    made: dict[int, Sees] = {}

    def make(partition: int) -> Sees:
        return made.setdefault(partition, Sees(partition))

    events = [
        encode(event(f"r{n}", principal_hash=f"p{n % 20}", time_ms=NOON_MS + n))
        for n in range(200)
        for event in (request, route, outcome)
    ]
    lines = [b"", b"\xff", *events]
    replay(lines, Partitions(make, 6), Alerting(shipped()), flush_ms=1000)
    homes = defaultdict(set)
    for partition, sees in made.items():
        ticks = [record for record in sees.seen if record.headers]
        assert len(ticks) == 1
        offsets = [record.offset for record in sees.seen]
        assert offsets == sorted(offsets)
        for record in sees.seen:
            if record.value and record.value != b"\xff":
                homes[record.value.split(b'"principal_hash":"')[1].split(b'"')[0]].add(partition)
    assert len(homes) == 20
    assert all(len(partitions) == 1 for partitions in homes.values())
    assert len(set.union(*homes.values())) == 6
    assert [record.value for record in made[0].seen].count(b"\xff") == 1
