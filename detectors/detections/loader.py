"""Detections from YAML files: strict, and every problem told with its file, line and name."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

from detectors.detections.model import Detection

_AT = re.compile(r"(.*) - at `(.+)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.+)`")


class DetectionError(ValueError):
    """Every problem found, each as `file:line: what`."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


def read(folder: Path) -> list[Detection]:
    """Read every `*.yml` of a folder, by name.

    Raises:
        DetectionError: unknown or missing keys, wrong values, a RuleID that is there twice, no such folder.
    """
    problems: list[str] = []
    found: dict[str, Detection] = {}
    if not folder.is_dir():
        raise DetectionError([f"{folder}: there is no such folder"])
    for path in sorted(folder.glob("*.yml")):
        try:
            detection = _read_file(path)
        except DetectionError as error:
            problems += error.problems
            continue
        if detection.rule_id in found:
            problems.append(f"{path}:1: RuleID `{detection.rule_id}` is there already")
        found[detection.rule_id] = detection
    if problems:
        raise DetectionError(problems)
    return list(found.values())


def _read_file(path: Path) -> Detection:
    lines: dict[str, int] = {}
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is None:
            raise DetectionError([f"{path}:1: it is empty"])
        lines = dict(_lines(node, "$"))
        return msgspec.convert(loader.construct_document(node), Detection)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DetectionError([f"{path}:{line}: {error.problem}"]) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DetectionError([f"{path}: {error}"]) from error
    except msgspec.ValidationError as error:
        raise DetectionError([f"{path}:{_told(str(error), lines)}"]) from error


def _lines(node: yaml.Node, at: str) -> Iterator[tuple[str, int]]:
    """The line of every key and item, by the paths that msgspec says."""
    yield at, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen: set[Any] = set()
        for key, value in node.value:
            if key.value in seen:  # YAML would take the last without a word
                raise yaml.MarkedYAMLError(problem=f"`{key.value}` is there twice", problem_mark=key.start_mark)
            seen.add(key.value)
            yield from _lines(value, f"{at}.{key.value}")
            yield f"{at}.{key.value}", key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _lines(item, f"{at}[{number}]")


def _told(message: str, lines: dict[str, int]) -> str:
    """`line: what`, where `what` names the key."""
    match = _AT.fullmatch(message)
    message, at = (match[1], match[2]) if match else (message, "$")
    if unknown := _UNKNOWN.fullmatch(message):
        at, message = f"{at}.{unknown[1]}", f"unknown key `{unknown[1]}`"
    elif quoted := re.match(r"`(\w+)`", message):
        at = f"{at}.{quoted[1]}"
    else:
        message = f"{message} - at `{at.removeprefix('$.')}`"
    while at not in lines and at != "$":
        at = re.sub(r"(\.[^.\[]*|\[[^\]]*\])$", "", at) or "$"
    return f"{lines.get(at, 1)}: {message}"
