"""`pointsman threshold`: what the lane could not carry out is refused before it is sent."""

import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from streams.cli import main
from streams.commands.threshold import routes
from streams.store import Answer


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("propose", "nonsense", "1", "--reason", "x"), "no threshold 'nonsense'"),
        (("propose", "novelty.flag", "nan", "--reason", "x"), "is a number"),
        (("propose", "novelty.flag", "0.9", "--reason", ""), "reason"),
        (("propose", "novelty.flag", "0.9", "--reason", "x", "--expires", "soon"), "--expires"),
        (("pin", "nonsense", "--reason", "x"), "no threshold 'nonsense'"),
        (("pin", "novelty.flag"), "Missing option '--reason'"),
        (("routes", "--submit"), "--submit wants a --reason"),
    ],
)
def test_what_means_nothing_is_not_even_shown(arguments: tuple[str, ...], why: str) -> None:
    result = CliRunner().invoke(main, ["threshold", *arguments, "--dry-run"])
    assert result.exit_code == 2
    assert why in result.output


def test_a_dry_run_shows_what_would_be_sent_and_needs_no_broker() -> None:
    arguments = ("propose", "novelty.flag", "0.98", "--tenant", "t1", "--reason", "x", "--dry-run", "--json")
    result = CliRunner().invoke(main, ["threshold", *arguments], env={"POINTSMAN_KAFKA_BOOTSTRAP": "127.0.0.1:1"})
    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    assert (shown["dry_run"], shown["decision"]["scope"], shown["decision"]["value"]) == (
        True, {"tenant_id": "t1"}, 0.98,
    )  # fmt: skip


def test_where_labels_ask_for_nothing_json_has_no_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "on_brokers", lambda *_: SimpleNamespace(routing={}))
    monkeypatch.setattr(routes, "on_store", lambda *_: Answer((), [], 0))
    submit = ("threshold", "routes", "--submit", "--reason", "x")
    assert CliRunner().invoke(main, submit).stdout == "no labels ask for a change of a route\n"
    result = CliRunner().invoke(main, [*submit, "--json"])
    assert (result.exit_code, result.stdout) == (0, "[]\n")
