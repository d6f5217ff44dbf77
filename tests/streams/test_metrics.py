"""Metrics: one prefix, bounded labels, and a page that is current."""

import json
import re
from pathlib import Path

from click.testing import CliRunner
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from streams import metrics
from streams.commands.metrics import command

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
UNBOUNDED = {"principal", "principal_hash", "tenant", "tenant_id", "request_id", "model", "selected_model", "user"}


def exposed() -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(metrics.exposition().decode())}


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == metrics.markdown(), "run: pointsman metrics > docs/metrics.md"
    assert CliRunner().invoke(command).output == metrics.markdown()
    assert len(json.loads(CliRunner().invoke(command, ["--json"]).output)) == len(metrics.DEFINITIONS)


def test_names_follow_the_conventions() -> None:
    names = [definition.name for definition in metrics.DEFINITIONS]
    assert len(set(names)) == len(names)
    for name, kind, help_text, labels in metrics.DEFINITIONS:
        assert re.fullmatch(r"pointsman_[a-z_]+", name)
        assert name.endswith("_total") == (kind == "counter")
        assert help_text.endswith(".")
        assert not UNBOUNDED & set(labels)
        assert all(labels.values()), "each label says what it may hold"


def test_all_are_exposed_beside_those_of_the_process() -> None:
    families = exposed()
    for name, kind, _, _ in metrics.DEFINITIONS:
        family = families[name.removesuffix("_total")]
        assert family.type == kind
    assert {"process_resident_memory_bytes", "python_info"} <= set(families)
    (build,) = families["pointsman_build_info"].samples
    assert build.value == 1
    assert build.labels["version"]


def test_a_count_comes_out() -> None:
    before = metrics.VERDICTS.labels("clean")
    before.inc(3)
    samples = {sample.labels["decision"]: sample.value for sample in exposed()["pointsman_verdicts"].samples}
    assert samples["clean"] >= 3
