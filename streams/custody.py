"""Custody's rules from the file that the settings name."""

from pathlib import Path

import msgspec

from detectors.custody.rules import RuleFile, Rules
from streams.settings import Detect, SettingsError


def rules(settings: Detect) -> Rules:
    """The rules; none where `detect.custody_rules` is empty.

    Raises:
        SettingsError: the file cannot be read, or is not a rule file; the message names the place.
    """
    if not settings.custody_rules:
        return Rules()
    path = Path(settings.custody_rules)
    try:
        return Rules(msgspec.yaml.decode(path.read_bytes(), type=RuleFile))
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError([f"detect.custody_rules: {path}: {error}"]) from error
