"""Settings: precedence, strictness, secrets, and the page that is made of them."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from streams.commands.config import command
from streams.configuration import all_fields, load, markdown, redacted
from streams.settings import Settings, SettingsError

ROOT = Path(__file__).parents[2]


def problems(path: Path | None, environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(path, environ)
    return caught.value.problems


def file(folder: Path, text: str) -> Path:
    path = folder / "pointsman.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults() -> None:
    assert load(None, {"HOME": "/", "PATH": ""}) == Settings()


def test_file_over_defaults_and_environment_over_file(tmp_path: Path) -> None:
    path = file(tmp_path, "kafka: {bootstrap: one:9092, partitions: 12}\nweb: {port: 1}\nlog:\n")
    environ = {
        "POINTSMAN_WEB_PORT": "2",
        "POINTSMAN_NOTIFY_CONSOLE": "false",
        "POINTSMAN_CLICKHOUSE_DSN": "clickhouse://h",
    }
    settings = load(path, environ)
    assert (settings.kafka.bootstrap, settings.kafka.partitions, settings.kafka.replication) == ("one:9092", 12, 1)
    assert settings.web.port == 2
    assert settings.notify.console is False
    assert settings.clickhouse.dsn == "clickhouse://h"
    assert load(None, environ | {"POINTSMAN_CONFIG": str(path)}) == settings


def test_an_empty_file_is_no_settings(tmp_path: Path) -> None:
    assert load(file(tmp_path, ""), {}) == Settings()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kafak: {}", "unknown section `kafak`"),
        ("kafka: {bootsrap: x}", "unknown key `kafka.bootsrap`"),
        ("kafka: {partitions: '6'}", "`kafka.partitions`: Expected `int`, got `str`"),
        ("kafka: {partitions: 0}", "`kafka.partitions`: Expected `int` >= 1"),
        ("kafka: {topic_suffix: 'a b'}", "`kafka.topic_suffix`"),
        ("detect: {checkpoint_seconds: .nan}", "`detect.checkpoint_seconds`"),
        ("detect: {transformer_per_second: .nan}", "`detect.transformer_per_second`"),
        ("detect: {checkpoint_seconds: .inf}", "`detect.checkpoint_seconds`"),
        ("log: {level: LOUD}", "`log.level`"),
        ("- kafka", "expected a mapping, got list"),
        ("kafka: 3", "kafka: expected a mapping, got int"),
        ("kafka: {x", "not YAML, line 1"),
        ("3: {}", "unknown section `3`"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, says: str) -> None:
    path = file(tmp_path, text)
    (problem,) = problems(path, {})
    assert problem.startswith(f"{path}")
    assert says in problem


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    assert "nowhere.yaml" in problems(tmp_path / "nowhere.yaml", {})[0]


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("POINTSMAN_KAFKA_BOOTSRAP", "x", "unknown variable"),
        ("POINTSMAN_KAFKA", "x", "unknown variable"),
        ("POINTSMAN_SERVICE_HOST", "10.0.0.1", "enableServiceLinks"),
        ("POINTSMAN_WEB_PORT", "http", "`web.port`"),
        ("POINTSMAN_WEB_PORT", "", "`web.port`"),
        ("POINTSMAN_WEB_PORT", "65536", "`web.port`"),
        ("POINTSMAN_LOG_JSON", "perhaps", "`log.json`"),
        ("POINTSMAN_WEB_HOST_FILE", "x", "unknown variable"),  # not a secret
    ],
)
def test_wrong_variables(variable: str, value: str, says: str) -> None:
    (problem,) = problems(None, {variable: value})
    assert problem.startswith(f"{variable}:")
    assert says in problem


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    path = file(tmp_path, "kafak: {}\nweb: {port: -1}")
    assert len(problems(path, {"POINTSMAN_X": "", "POINTSMAN_LOG_LEVEL": "x"})) == 4


def test_variables_of_other_parts_are_allowed() -> None:
    assert load(None, {"POINTSMAN_DATA": "x", "POINTSMAN_CACHE": "y", "POINTSMAN_CONFIG": ""}) == Settings()


def test_secrets_from_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret \n", encoding="utf-8")
    environ = {"POINTSMAN_NOTIFY_WEBHOOK_SECRET_FILE": str(secret), "POINTSMAN_NOTIFY_WEBHOOK_URL": "https://h"}
    assert load(None, environ).notify.webhook_secret == "s3cret "  # noqa: S105
    both = environ | {"POINTSMAN_NOTIFY_WEBHOOK_SECRET": "x"}
    assert "is set too" in problems(None, both)[0]
    gone = {"POINTSMAN_NOTIFY_WEBHOOK_SECRET_FILE": str(tmp_path / "gone")}
    assert problems(None, gone)[0].startswith("POINTSMAN_NOTIFY_WEBHOOK_SECRET_FILE:")


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"POINTSMAN_KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "needs mechanism"),
        ({"POINTSMAN_KAFKA_SASL_PASSWORD": "x"}, "would not be used"),
        ({"POINTSMAN_KAFKA_SSL_CERTFILE": "x"}, "go together"),
        ({"POINTSMAN_NOTIFY_WEBHOOK_SECRET": "x"}, "no webhook_url"),
        ({"POINTSMAN_FEEDBACK_KEY": "short"}, "feedback.key has fewer than 16 characters"),
        ({"POINTSMAN_FEEDBACK_APPROVERS": "ann:x ben:x"}, "feedback.approvers: `name:key` with spaces between"),
        ({"POINTSMAN_FEEDBACK_OLD_KEYS": "x"}, "feedback.old_keys: `name:key`"),
    ],
)
def test_contradictions(environ: dict[str, str], says: str) -> None:
    assert says in problems(None, environ)[0]


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    sasl = "kafka: {security_protocol: SASL_SSL, sasl_mechanism: PLAIN, sasl_username: u, sasl_password: sw0rdfish}"
    path = file(tmp_path, f"{sasl}\nclickhouse: {{dsn: 'clickhouse://u:sw0rdfish@h'}}")
    shown = redacted(load(path, {}))
    assert "sw0rdfish" not in json.dumps(shown)
    assert shown["kafka"]["sasl_password"] == "***"  # noqa: S105
    assert shown["notify"]["webhook_secret"] == "", "that none is set may be seen"
    printed = CliRunner().invoke(command, ["print", "--config", str(path)])
    assert printed.exit_code == 0
    assert "sw0rdfish" not in printed.output
    for text in (
        "kafka: {sasl_password: [sw0rdfish]}",
        "kafka: {sasl_password: {sw0rdfish: sw0rdfish",
        "k: 'sw0rdfish",
    ):
        assert "sw0rdfish" not in str(problems(file(tmp_path, text), {}))


def values(default: Any) -> st.SearchStrategy[Any]:
    """Values that every key of this default's type takes."""
    if isinstance(default, bool):
        return st.booleans()
    return st.integers(1, 9) if isinstance(default, int) else st.floats(0.7 * default, default)


@given(st.data())
def test_what_is_printed_can_be_loaded(data: st.DataObject) -> None:
    """Through the environment as text: numbers and truth values come back as they were."""
    changed: dict[str, Any] = {}
    for field in data.draw(st.lists(st.sampled_from(list(all_fields())), max_size=5)):
        if type(field.default) in (int, float, bool):
            changed[field.variable] = data.draw(values(field.default))
    settings = load(None, {name: str(value) for name, value in changed.items()})
    loaded = msgspec.to_builtins(settings)
    for field in all_fields():
        if field.variable in changed:
            assert loaded[field.section][field.key] == changed[field.variable]


def test_every_key_is_documented_and_the_page_is_current() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == markdown(), "run: pointsman config docs > docs/settings.md"
    for field in all_fields():
        assert f"`{field.variable}`" in page
        assert len(field.description) > 10
    assert CliRunner().invoke(command, ["docs"]).output == page


def test_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = CliRunner().invoke
    assert run(command, ["check"]).exit_code == 0
    printed = run(command, ["print", "--json"])
    assert json.loads(printed.output) == redacted(Settings())
    assert load(file(tmp_path, run(command, ["print"]).output), {}) == Settings()
    monkeypatch.setenv("POINTSMAN_KAFKA_PARTITION", "3")
    for name in ("check", "print"):
        failed = run(command, [name])
        assert failed.exit_code == 1
        assert "POINTSMAN_KAFKA_PARTITION" in failed.output
