"""What the proxy's configuration names is there, and a gateway without brokers or key does not come up."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from streams.settings import SettingsError
from tests.streams.gateways import litellm_rig as rig

CONFIG = Path(__file__).parents[3] / "deploy" / "litellm" / "config.yaml"
MODULE = "streams.gateways.litellm_callback"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("KAFKA_BOOTSTRAP", "GATEWAY_IDENTITY_KEY", "GATEWAY_PROMPT", "GATEWAY_INSTANCE"):
        monkeypatch.delenv(f"POINTSMAN_{name}", raising=False)
    sys.modules.pop(MODULE, None)
    yield
    sys.modules.pop(MODULE, None)


def test_the_example_configuration_names_a_callback_that_litellm_can_load(monkeypatch: pytest.MonkeyPatch) -> None:
    from litellm.proxy.types_utils.utils import get_instance_fn

    monkeypatch.setenv("POINTSMAN_KAFKA_BOOTSTRAP", "127.0.0.1:9")
    monkeypatch.setenv("POINTSMAN_GATEWAY_IDENTITY_KEY", "a key of the tests' own")
    (name,) = yaml.safe_load(CONFIG.read_text())["litellm_settings"]["callbacks"]
    assert isinstance(get_instance_fn(name, str(CONFIG)), rig.PointsmanLogger)


@pytest.mark.parametrize(
    ("environment", "missing"),
    [
        ({}, "POINTSMAN_KAFKA_BOOTSTRAP"),
        ({"POINTSMAN_KAFKA_BOOTSTRAP": "127.0.0.1:9"}, "POINTSMAN_GATEWAY_IDENTITY_KEY"),
        (
            {"POINTSMAN_KAFKA_BOOTSTRAP": "127.0.0.1:9", "POINTSMAN_GATEWAY_IDENTITY_KEY": "short"},
            "at least 16 bytes",
        ),
    ],
)
def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], missing: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=missing):
        import streams.gateways.litellm_callback  # noqa: F401
