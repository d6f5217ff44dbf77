"""Reads the settings: defaults, then a YAML file, then the environment. Strict: what is unknown or wrong is named.

`POINTSMAN_<SECTION>_<KEY>` overrides a key; for a secret, `POINTSMAN_<SECTION>_<KEY>_FILE` names a file that
holds it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import msgspec
import yaml
from msgspec import Meta

from schemas.signatures import LEAST_KEY_CHARS, read_keys
from streams.settings import Settings, SettingsError

PREFIX = "POINTSMAN_"
OTHER_VARIABLES = {
    "POINTSMAN_CONFIG": "path of the YAML file, where no `--config` is given",
    "POINTSMAN_DATA": "folder of the evaluation data",
    "POINTSMAN_CACHE": "folder of what is downloaded or built once",
}


class Field(NamedTuple):
    """One key, as the loader and the documentation see it."""

    section: str
    key: str
    type: Any  # annotated
    default: Any
    description: str
    secret: bool

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"{PREFIX}{self.section}_{self.key}".upper()


def all_fields() -> Iterator[Field]:
    """Every key, in the order of streams/settings.py."""
    for section, kind in get_type_hints(Settings).items():
        hints = get_type_hints(kind, include_extras=True)
        for info in msgspec.structs.fields(kind):
            metas = [meta for meta in get_args(hints[info.name])[1:] if isinstance(meta, Meta)]
            description = next(meta.description for meta in metas if meta.description)
            secret = any((meta.extra or {}).get("secret") for meta in metas)
            yield Field(section, info.name, hints[info.name], info.default, description, secret)


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the file (None: the one that POINTSMAN_CONFIG names, or none) and the environment over it.

    Raises:
        SettingsError: unknown keys, wrong types, values out of range, settings that contradict each other.
    """
    if path is None and environ.get("POINTSMAN_CONFIG"):
        path = Path(environ["POINTSMAN_CONFIG"])
    fields = {(field.section, field.key): field for field in all_fields()}
    problems: list[str] = []
    values: dict[str, dict[str, Any]] = {section: {} for section, _ in fields}
    if path is not None:
        _take_file(path, fields, values, problems)
    _take_environment(environ, fields, values, problems)
    if problems:
        raise SettingsError(problems)
    settings = msgspec.convert(values, Settings)
    if contradictions := list(_contradictions(settings)):
        raise SettingsError(contradictions)
    return settings


_Fields = Mapping[tuple[str, str], Field]
_Values = dict[str, dict[str, Any]]


def _take_file(path: Path, fields: _Fields, values: _Values, problems: list[str]) -> None:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:  # its text quotes the line, which may hold a secret
        mark = getattr(error, "problem_mark", None)
        problems.append(f"{path}: not YAML" + (f", line {mark.line + 1}" if mark else ""))
        return
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path}: {error}")
        return
    for section, keys in _mapping(document, str(path), problems).items():
        if section not in values:
            problems.append(f"{path}: unknown section `{section}`")
            continue
        for key, value in _mapping(keys, f"{path}: {section}", problems).items():
            if (section, key) not in fields:
                problems.append(f"{path}: unknown key `{section}.{key}`")
                continue
            _take(fields[section, key], value, str(path), values, problems)


def _mapping(value: Any, where: str, problems: list[str]) -> dict[Any, Any]:
    if value is None or isinstance(value, dict):
        return value or {}
    problems.append(f"{where}: expected a mapping, got {type(value).__name__}")
    return {}


def _take_environment(environ: Mapping[str, str], fields: _Fields, values: _Values, problems: list[str]) -> None:
    by_variable = {field.variable: field for field in fields.values()}
    in_files = {f"{field.variable}_FILE": field for field in fields.values() if field.secret}
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        if variable in by_variable:
            _take(by_variable[variable], environ[variable], variable, values, problems)
        elif variable in in_files:
            field = in_files[variable]
            if field.variable in environ:
                problems.append(f"{variable}: {field.variable} is set too")
                continue
            try:
                secret = Path(environ[variable]).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                problems.append(f"{variable}: {error}")
                continue
            _take(field, secret, variable, values, problems)
        elif variable not in OTHER_VARIABLES:
            hint = " (from Kubernetes? set enableServiceLinks: false)" if "_SERVICE_" in variable else ""
            problems.append(f"{variable}: unknown variable{hint}")


def _take(field: Field, value: Any, source: str, values: _Values, problems: list[str]) -> None:
    """Convert one value; text from the environment may stand for a number or a truth value."""
    from_environment = source.startswith(PREFIX)
    try:
        values[field.section][field.key] = msgspec.convert(value, field.type, strict=not from_environment)
    except msgspec.ValidationError as error:
        message = str(error) if not field.secret else "wrong type or out of range"
        problems.append(f"{source}: `{field.section}.{field.key}`: {message}")


def _contradictions(settings: Settings) -> Iterator[str]:
    kafka = settings.kafka
    with_sasl = kafka.security_protocol.startswith("SASL_")
    if with_sasl and not (kafka.sasl_mechanism and kafka.sasl_username and kafka.sasl_password):
        yield f"kafka.security_protocol {kafka.security_protocol} needs mechanism, username and password (sasl_*)"
    if not with_sasl and (kafka.sasl_mechanism or kafka.sasl_password):
        yield f"kafka.sasl_* are set, but security_protocol is {kafka.security_protocol}: they would not be used"
    if bool(kafka.ssl_certfile) != bool(kafka.ssl_keyfile):
        yield "kafka.ssl_certfile and kafka.ssl_keyfile go together"
    if 0 < len(settings.feedback.key) < LEAST_KEY_CHARS:
        yield f"feedback.key has fewer than {LEAST_KEY_CHARS} characters"
    for name in ("approvers", "old_keys"):
        try:
            read_keys(getattr(settings.feedback, name))
        except ValueError as error:
            yield f"feedback.{name}: {error}"
    if settings.notify.webhook_secret and not settings.notify.webhook_url:
        yield "notify.webhook_secret is set, but no webhook_url"


def redacted(settings: Settings) -> dict[str, dict[str, Any]]:
    """All values by section and key, secrets that are set as `***`: for printing."""
    values: dict[str, dict[str, Any]] = msgspec.to_builtins(settings)
    for field in all_fields():
        if field.secret and values[field.section][field.key]:
            values[field.section][field.key] = "***"
    return values


def markdown() -> str:
    """The page docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Made by `pointsman config docs > docs/settings.md` from `streams/settings.py`.",
        "",
        "Defaults, then the YAML file (`--config` or `POINTSMAN_CONFIG`), then the environment. An unknown key or",
        "variable, a wrong type or a value out of range is an error that names it. A secret may also be read from",
        "the file that its variable with `_FILE` behind it names. `pointsman config check` checks,",
        "`pointsman config print` shows what is in force, secrets as `***`.",
    ]
    section = ""
    for field in all_fields():
        if field.section != section:
            section = field.section
            doc = (get_type_hints(Settings)[section].__doc__ or "").strip()
            lines += ["", f"## `{section}`", "", doc, "", "| key | variable | type | default | meaning |"]
            lines += ["|---|---|---|---|---|"]
        kind = _type_text(field.type) + (", secret" if field.secret else "")
        default = msgspec.json.encode(field.default).decode()
        cells = (f"`{field.key}`", f"`{field.variable}`", kind, f"`{default}`", field.description)
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Other variables", "", "| variable | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in OTHER_VARIABLES.items()]
    return "\n".join(lines) + "\n"


def _type_text(annotated: Any) -> str:
    base, *metas = get_args(annotated)
    choices = get_args(base)
    if choices:
        return ", ".join(f"`{choice}`" if choice else "empty" for choice in choices)
    bounds = {}
    for meta in metas:
        for bound, sign in (("gt", "> "), ("ge", "≥ "), ("le", "≤ ")):
            if getattr(meta, bound) is not None:
                bounds[bound] = f"{sign}{getattr(meta, bound):,}"
    return " ".join([base.__name__, ", ".join(bounds.values())]).strip()
