import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.catalogue import CatalogueError, Records, append_records, read_records, records_of, shipped
from schemas.triggers import Trigger

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def entry(name: str, version: int = 1, **fields: object) -> Trigger:
    return Trigger(trigger_id=name, version=version, text=f"text of {name} {version}", kind="lexical",
                   updated_at=NOW, **{"review": "approved", **fields})  # type: ignore[arg-type]  # fmt: skip


entries = st.lists(
    st.builds(
        entry,
        st.sampled_from("abcd"),
        st.integers(1, 3),
        review=st.sampled_from(["proposed", "approved", "rejected", "retired"]),
    )
)


@given(entries)
def test_the_last_record_of_the_highest_version_of_each_id_holds(written: list[Trigger]) -> None:
    held = records_of(written).view()
    for name in {record.trigger_id for record in written}:
        mine = [record for record in written if record.trigger_id == name]
        newest = max(record.version for record in mine)
        assert held[name] == [record for record in mine if record.version == newest][-1]


@given(entries)
def test_a_compacted_log_gives_the_same_catalogue(written: list[Trigger]) -> None:
    """What compaction leaves (the last of each key) is what the whole log says, when versions only grow."""
    grown = [
        Trigger(**{f: getattr(r, f) for f in r.__struct_fields__} | {"version": i + 1})
        for i, r in enumerate(written)
    ]
    last = {record.trigger_id: record for record in grown}
    compacted = [record for record in grown if last[record.trigger_id] is record]
    assert records_of(grown).catalogue().triggers == records_of(compacted).catalogue().triggers


def test_only_approved_ones_in_order_of_their_ids_and_a_version_that_grows() -> None:
    records = records_of([entry("b"), entry("a"), entry("c", review="retired")])
    first = records.catalogue()
    assert [trigger.trigger_id for trigger in first.triggers] == ["a", "b"]
    records.remove("a")
    second = records.catalogue()
    assert [trigger.trigger_id for trigger in second.triggers] == ["b"]
    assert second.version > first.version
    assert records.catalogue(version=99).version == 99
    assert len(Records().catalogue()) == 0


def test_a_catalogue_can_be_made_while_records_come() -> None:
    """A worker swaps in a thread what its loop goes on reading; an error there ended the worker."""
    arrive = [entry(f"own{number}") for number in range(12_000)]
    records, stopped = records_of(arrive[:2_000]), threading.Event()

    def write() -> None:
        for each in arrive:
            if not stopped.wait(0):
                records.put(each)

    writing, interval = threading.Thread(target=write), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        writing.start()
        sizes = [len(records.catalogue()) for _ in range(50)]
    finally:
        stopped.set()
        writing.join()
        sys.setswitchinterval(interval)
    assert 2_000 <= sizes[0] < sizes[-1]
    assert sizes == sorted(sizes)


def test_a_file_round_trips_and_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    append_records(path, [entry("a"), entry("b")])
    append_records(path, [entry("a", version=2)])
    assert read_records(path).catalogue().triggers == (entry("a", version=2), entry("b"))
    with path.open("ab") as file:
        file.write(b'\n{"trigger_id": 3}\n')
    with pytest.raises(CatalogueError, match=r"c\.jsonl:5"):
        read_records(path)


def test_what_ships_is_reviewed_and_says_where_it_comes_from() -> None:
    catalogue = shipped()
    assert len(catalogue) >= 50
    assert {trigger.kind for trigger in catalogue.triggers} >= {"lexical", "both"}
    assert {trigger.direction for trigger in catalogue.triggers} == {"up", "down"}
    for trigger in catalogue.triggers:
        assert trigger.provenance
        assert trigger.licence
        assert trigger.reviewer
        assert trigger.bits >= 45
        assert trigger.benign_hits == 0
    texts = [trigger.text for trigger in catalogue.triggers]
    assert len(set(texts)) == len(texts)
