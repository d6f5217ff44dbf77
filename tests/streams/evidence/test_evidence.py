"""An alert explained, exported and verified, from a history that the lanes' own code has written."""

import hashlib
import io
import json
import math
import resource
import secrets
import zipfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from click.testing import Result as Shown

from schemas import topics
from schemas.codec import encode
from schemas.thresholds import ThresholdUpdate, scope_of
from streams.cli import main
from streams.commands.export import write_whole
from streams.embedded.clickhouse import ClickHouseServer
from streams.evidence.bundle import BadEvidence, verify
from streams.evidence.explain import _share
from streams.replay import FileRecord, Result
from tests.factories import outcome, request, route
from tests.streams.a_day import DAY, NOW_MS, Past, judged, lived
from tests.streams.gateways.test_thresholds import FLAG, OWN, chain

LAG = timedelta(minutes=3)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    with ClickHouseServer(tmp_path_factory.mktemp("clickhouse")) as server:
        made = Past(server)
        made.store(lived(behind(judged(DAY))))
        yield made


def behind(result: Result) -> Result:
    """As from a fleet lane some minutes behind: an alert's times are when the lane read the findings."""
    for alert in result.alerts:
        alert.starts_at += LAG
        alert.last_seen += LAG
        alert.time += LAG
    return result


def alert_of(past: Past, name: str) -> str:
    ((alert_id,),) = past.query(f"SELECT DISTINCT alert_id FROM alerts WHERE alertname = '{name}' LIMIT 1")
    return str(alert_id)


def command(past: Past, *arguments: str) -> Shown:
    return CliRunner().invoke(main, arguments, env=past.environment)


def test_a_known_trigger_is_explained(past: Past) -> None:
    alert_id = alert_of(past, "known_trigger")
    shown = command(past, "explain", alert_id[:12])
    assert shown.exit_code == 0, shown.output
    for part in (
        "A catalogued trigger is in use against the router (known_trigger, critical,",
        "1 finding of 1 principal and 1 tenant make it up; it fires at the first one.",
        "The prompt holds the catalogued trigger",
        "so much of it would stand together by chance in one prompt of 2^",
        "detector triggers 1, request gadget-",
        "Of its requests went 1 to m0 (tier SIMPLE).",
        "They cost 0.0010 USD",
        "triggers.bits = 22",
        "What to do",
        "`pointsman query blast_radius --param trigger=",
    ):
        assert part in shown.output, part
    assert "Peru" not in shown.output
    found = past.run("explain", alert_id)
    (kind,) = [sentence for sentence in found["why"] if "score" in sentence["numbers"]]
    assert kind["numbers"]["score"] > kind["numbers"]["threshold"]
    assert "triggers" in found["requests"][0]["flagged_by"]
    assert found["runbook"][0].startswith("1. ")


def test_a_spend_alert_is_explained_in_its_own_words(past: Past) -> None:
    shown = command(past, "explain", alert_of(past, "denial_of_wallet"))
    assert shown.exit_code == 0, shown.output
    assert "go to dearer tiers than its own past explains: the evidence (tier) is" in shown.output
    assert "spend.tier_odds = " in shown.output
    assert "of principal_hash wallet, tenant_id t1" in shown.output


def test_an_unsafe_route_is_explained_by_what_was_won(past: Past) -> None:
    result = judged([
        each
        for n in range(60)
        for each in (
            request(f"unsafe-{n}", time_ms=NOW_MS + n), route(f"unsafe-{n}", time_ms=NOW_MS + n),
            outcome(f"unsafe-{n}", time_ms=NOW_MS + n, evaluation_score_label="unsafe" if n % 2 else "safe"),
        )
    ])  # fmt: skip
    said = [(topics.FINDINGS, each) for each in result.findings] + [(topics.ALERTS, each) for each in result.alerts]
    past.store([FileRecord(topic.name, 10_000 + n, NOW_MS, encode(each)) for n, (topic, each) in enumerate(said)])
    shown = command(past, "explain", alert_of(past, "unsafe_route"))
    assert "of those labelled lately, where 2.0% are allowed" in shown.output
    assert "10^6.0 flag" in shown.output


def test_every_alert_can_be_explained(past: Past) -> None:
    for (alert_id,) in past.query("SELECT DISTINCT alert_id FROM alerts"):
        found = past.run("explain", alert_id)
        assert len(found["why"]) >= 2
        assert all(sentence["text"].endswith(".") for sentence in found["why"])


def test_evidence_about_a_route_is_told_as_odds_and_that_of_earlier_releases_as_a_share() -> None:
    row = {"note": "No text", "seen": 0.31, "has_expected": True, "expected": 0.05}
    said = _share({**row, "score": 14.5, "threshold": math.log(1e6)})
    assert said == (
        "No text: 31.0%, against 5.0% that is usual or allowed;"
        " the evidence is 1,982,759 to one, and 1,000,000 to one flags"
    )
    assert "the excess that is certain is 12.0%, and 5.0% flag" in _share({**row, "score": 0.12, "threshold": 0.05})


def test_an_unknown_alert(past: Past) -> None:
    shown = command(past, "explain", "nothing")
    assert (shown.exit_code, shown.output) == (1, "Error: no alert 'nothing' in the history\n")
    several = command(past, "explain", "")
    assert (several.exit_code, alert_of(past, "known_trigger") in several.output) == (1, True)


def exported(past: Past, folder: Path, name: str = "known_trigger") -> tuple[Path, dict[str, Any]]:
    path = folder / f"{secrets.token_hex(4)}.zip"
    return path, past.run("export", alert_of(past, name), "--out", str(path))


def test_an_export_holds_everything_and_verifies(past: Past, tmp_path: Path) -> None:
    path, told = exported(past, tmp_path)
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        parts = {name: archive.read(name) for name in names}
    assert names >= {
        "manifest.json", "alert.json", "states.json", "findings.json", "verdicts.json", "reasons.json",
        "routes.json", "outcomes.json", "thresholds.json", "threshold_updates.json", "versions.json",
        "explanation.txt", "queries/findings.sql", "queries/findings.parameters.json",
    }  # fmt: skip
    alert = json.loads(parts["alert.json"])
    assert [finding["finding_id"] for finding in json.loads(parts["findings.json"])] == alert["finding_ids"]
    assert [verdict["request_id"] for verdict in json.loads(parts["verdicts.json"])] == alert["request_ids"]
    assert json.loads(parts["thresholds.json"])["triggers.bits"] == 22.0
    assert not any(b"Peru" in part for part in parts.values())

    verified = json.loads(command(past, "verify", str(path), "--seal", told["seal"], "--json").output)
    assert verified == {**told, "file": str(path)}
    assert "only --seal shows" in command(past, "verify", str(path)).output
    assert "only --seal shows" not in command(past, "verify", str(path), "--seal", told["seal"]).output
    wrong = command(past, "verify", str(path), "--seal", "0" * 64)
    assert wrong.exit_code == 1
    assert f"the seal is {told['seal']}, not" in wrong.output


def test_evidence_is_not_written_over(past: Past, tmp_path: Path) -> None:
    path, _ = exported(past, tmp_path)
    data = path.read_bytes()
    again = command(past, "export", alert_of(past, "known_trigger"), "--out", str(path))
    assert (again.exit_code, path.read_bytes()) == (1, data)
    assert "is there" in again.output


def test_evidence_that_cannot_be_written_leaves_nothing(past: Past, tmp_path: Path) -> None:
    gone = command(past, "export", alert_of(past, "known_trigger"), "--out", str(tmp_path / "none" / "e.zip"))
    assert (gone.exit_code, "No such file" in gone.output) == (1, True)
    least, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, most))  # half way through, as a disk that fills up
    try:
        with pytest.raises(OSError, match="File too large"):
            write_whole(tmp_path / "e.zip", bytes(2_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (least, most))
    assert list(tmp_path.iterdir()) == []


def test_thresholds_are_those_of_the_alerts_time(past: Past, tmp_path: Path) -> None:
    ((first, last),) = past.query(
        "SELECT min(starts_at), max(last_seen) FROM alerts WHERE alertname = 'known_trigger'"
    )
    links = chain(
        {"new_value": 0.9, "time": first - timedelta(days=1)},
        {"new_value": 0.8, "time": first - timedelta(days=1), "mode": "proposed"},
        {"scope": OWN, "new_value": 0.5, "time": first - timedelta(days=1)},
        {"scope": scope_of(FLAG, "t2"), "new_value": 0.4, "time": first - timedelta(days=1)},
        # An override that has ended, and one that came after.
        {"parameter": "novelty.prior", "old_value": 0.95, "new_value": 0.99, "direction": "loosen",
         "time": first - timedelta(days=1), "expires_at": first - timedelta(hours=1)},
        {"new_value": 0.7, "time": last + timedelta(days=1)},
    )  # fmt: skip
    past.store([FileRecord(topics.THRESHOLDS.name, n, NOW_MS, encode(link)) for n, link in enumerate(links)])
    path, _ = exported(past, tmp_path)
    with zipfile.ZipFile(path) as archive:
        values = json.loads(archive.read("thresholds.json"))
        updates = archive.read("threshold_updates.json")
    assert (values[FLAG], values[f"{FLAG} t1"], values["novelty.prior"]) == (0.9, 0.5, 0.95)
    assert f"{FLAG} t2" not in values  # a tenant that has no part in it
    assert msgspec.json.decode(updates, type=list[ThresholdUpdate]) == links[:-1]


def rewritten(data: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return out.getvalue()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda parts: parts.update({"findings.json": b"[]\n"}), "findings.json: was changed"),
        (lambda parts: parts.pop("verdicts.json"), "verdicts.json: is missing"),
        (lambda parts: parts.update({"extra.json": b"{}"}), "extra.json: is not in the manifest"),
        (lambda parts: parts.pop("manifest.json"), "not an evidence file"),
        (lambda parts: parts.update({"manifest.json": b'{"format": 2}'}), "not an evidence file"),
    ],
)
def test_a_changed_file_is_found_out(
    past: Past, tmp_path: Path, change: Callable[[dict[str, bytes]], None], problem: str
) -> None:
    path, _ = exported(past, tmp_path)
    path.write_bytes(rewritten(path.read_bytes(), change))
    shown = command(past, "verify", str(path))
    assert shown.exit_code == 1
    assert problem in shown.output


def test_a_file_made_anew_is_found_out_by_the_seal(past: Past, tmp_path: Path) -> None:
    path, told = exported(past, tmp_path)

    def forge(parts: dict[str, bytes]) -> None:
        manifest = json.loads(parts["manifest.json"])
        del manifest["parts"]["verdicts.json"], parts["verdicts.json"]
        parts["manifest.json"] = json.dumps(manifest).encode()

    data = rewritten(path.read_bytes(), forge)
    assert verify(data).parts == told["parts"] - 1  # without the seal nothing shows
    with pytest.raises(BadEvidence, match="the seal is"):
        verify(data, told["seal"])


def test_one_byte_is_enough_wherever_it_is(past: Past, tmp_path: Path) -> None:
    path, told = exported(past, tmp_path)
    data = path.read_bytes()
    assert told["seal"] == hashlib.sha256(data).hexdigest()
    for place in (*range(0, len(data), len(data) // 50), len(data) - 1):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises(BadEvidence, match="the seal is"):
            verify(bytes(changed), told["seal"])


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip at all"])
def test_what_is_no_evidence_file(data: bytes) -> None:
    with pytest.raises(BadEvidence, match="not an evidence file"):
        verify(data)
