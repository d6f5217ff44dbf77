"""The exported schemas: current or compatible, annotated by one rule, and each with an example that holds."""

import copy
import json
from pathlib import Path

import jsonschema
import msgspec
import pytest
from click.testing import CliRunner

from schemas import naming
from schemas.events import Event, Outcome, Request, Route
from schemas.export import FOLDER, RECORDS, breaks, json_schema, read
from streams.commands.schema import command

EXAMPLES = FOLDER / "examples"


@pytest.mark.parametrize("name", RECORDS)
def test_committed_schema_still_reads_what_was_written(name: str) -> None:
    committed = read(name)
    assert committed is not None, f"{name} is not exported"
    assert breaks(committed, json_schema(name)) == []


@pytest.mark.parametrize("name", RECORDS)
def test_example_is_valid_decodes_and_comes_back(name: str) -> None:
    example = json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(json_schema(name)).validate(example)
    record = msgspec.json.decode(json.dumps(example), type=RECORDS[name])
    assert msgspec.json.decode(msgspec.json.encode(record), type=RECORDS[name]) == record
    known = {field.encode_name for field in msgspec.structs.fields(record)} | {"event_type"}
    assert set(example) <= known, "a field that readers would ignore"


def test_every_file_belongs_to_a_record() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(RECORDS)
    assert {path.stem for path in EXAMPLES.glob("*.json")} == set(RECORDS)


def test_schema_refuses_what_the_codec_refuses() -> None:
    example = json.loads((EXAMPLES / "route.v1.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(json_schema("route.v1"))
    for field, value in (("difficulty_score", 1e300), ("selected_model", ""), ("score_kind", "x"), ("tier", 3)):
        assert not validator.is_valid(example | {field: value})
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(json.dumps(example | {field: value}), type=Route)


def _fields(*records: type[Event]) -> set[str]:
    return {field.name for record in records for field in msgspec.structs.fields(record)}


def test_names_and_attributes_are_a_bijection() -> None:
    attributes = list(naming.OTEL.values())
    assert len(set(attributes)) == len(attributes)
    assert len(naming.BY_RULE) + len(naming.RENAMED) == len(naming.OTEL), "a field has two attributes"
    fields = _fields(Request, Route, Outcome)
    assert set(naming.OTEL) <= fields
    assert set(naming.LITELLM) <= fields
    assert len(set(naming.LITELLM.values())) == len(naming.LITELLM)


@pytest.mark.parametrize("field", naming.RENAMED)
def test_renamed_fields_need_to_be(field: str) -> None:
    attribute, why = naming.RENAMED[field]
    assert naming.field_of(attribute) != field
    assert naming.field_of(attribute) not in _fields(Request, Route, Outcome)
    assert why


def test_annotations_are_exported_and_only_there() -> None:
    exported = {
        field: body.get("x-otel")
        for name, record in (("request.v1", "Request"), ("route.v1", "Route"), ("outcome.v1", "Outcome"))
        for field, body in json_schema(name)["$defs"][record]["properties"].items()
    }
    assert {field: otel for field, otel in exported.items() if otel} == naming.OTEL
    assert "x-otel" not in json.dumps(json_schema("alert.v1"))


def _changed(change: str) -> list[str]:
    old = json_schema("route.v1")
    new = copy.deepcopy(old)
    route = new["$defs"]["Route"]
    if change == "optional":
        route["properties"]["new_field"] = {"type": "string", "default": ""}
    elif change == "enum":
        route["properties"]["score_kind"]["enum"].append("elo")
    elif change == "remark":
        route["properties"]["tier"]["description"] = "other words"
    elif change == "required":
        route["properties"]["new_field"] = {"type": "string"}
        route["required"].append("new_field")
    elif change == "removed":
        del route["properties"]["tier"]
    elif change == "type":
        route["properties"]["tier"]["type"] = "integer"
    elif change == "bound":
        route["properties"]["attempt"]["maximum"] = 10
    elif change == "nested":
        new["$defs"]["CounterfactualScore"]["properties"]["tokens"]["minimum"] = 5
    elif change == "narrower enum":
        route["properties"]["score_kind"]["enum"].pop()
    return breaks(old, new)


@pytest.mark.parametrize("change", ["optional", "enum", "remark"])
def test_compatible_changes_pass(change: str) -> None:
    assert _changed(change) == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("required", "$.new_field"),
        ("removed", "$.tier"),
        ("type", "$.tier"),
        ("bound", "$.attempt"),
        ("nested", "$.counterfactual_scores[].tokens"),
        ("narrower enum", "$.score_kind"),
    ],
)
def test_breaking_changes_are_named(change: str, field: str) -> None:
    problems = _changed(change)
    assert len(problems) == 1
    assert problems[0].startswith(f"{field}:")


def test_commands_export_check_and_refuse(tmp_path: Path) -> None:
    run = CliRunner().invoke
    folder = ["--folder", str(tmp_path)]
    assert run(command, ["check", *folder]).exit_code == 1
    assert run(command, ["export", *folder]).exit_code == 0
    assert run(command, ["check", *folder]).exit_code == 0
    path = tmp_path / "marker.v1.json"
    path.write_text(path.read_text().replace("integer", "string"))
    refused = run(command, ["export", *folder])
    assert refused.exit_code == 1
    assert "marker.v1: $.offset" in refused.output
    assert run(command, ["export", "--breaking", *folder]).exit_code == 0
    assert run(command, ["check", *folder]).exit_code == 0
