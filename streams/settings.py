"""Settings: defaults here, then a YAML file, then the environment. Strict: what is unknown or wrong is named.

`POINTSMAN_<SECTION>_<KEY>` overrides a key; for a secret, `POINTSMAN_<SECTION>_<KEY>_FILE` names a file that
holds it. The page docs/settings.md is made from this module (`pointsman config docs`).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

import msgspec
import yaml
from msgspec import Meta

from schemas.signatures import LEAST_KEY_CHARS, read_keys

PREFIX = "POINTSMAN_"
OTHER_VARIABLES = {
    "POINTSMAN_CONFIG": "path of the YAML file, where no `--config` is given",
    "POINTSMAN_DATA": "folder of the evaluation data",
    "POINTSMAN_CACHE": "folder of what is downloaded or built once",
}

_SECRET = {"secret": True}
Positive = Meta(gt=0, le=86_400)


class Kafka(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The broker. Without `bootstrap` the embedded one."""

    bootstrap: Annotated[str, Meta(description="host:port list; empty: the embedded node")] = ""
    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], Meta(description="how to connect")
    ] = "PLAINTEXT"
    sasl_mechanism: Annotated[
        Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], Meta(description="with a SASL protocol")
    ] = ""
    sasl_username: Annotated[str, Meta(description="with a SASL protocol")] = ""
    sasl_password: Annotated[str, Meta(description="with a SASL protocol", extra=_SECRET)] = ""
    ssl_cafile: Annotated[str, Meta(description="PEM of the authorities to trust; empty: the system's")] = ""
    ssl_certfile: Annotated[str, Meta(description="PEM of our certificate, for mutual TLS")] = ""
    ssl_keyfile: Annotated[str, Meta(description="PEM of its key, for mutual TLS")] = ""
    client_id: Annotated[str, Meta(min_length=1, description="name in the broker's logs and quotas")] = "pointsman"
    instance_id: Annotated[
        str, Meta(description="static group membership, one id a process (the pod's name); empty: none")
    ] = ""
    session_seconds: Annotated[
        float, Meta(ge=6, le=300, description="silence after which the group gives our partitions to others")
    ] = 10.0
    topic_suffix: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9._-]{0,64}$", description="after every topic's and group's name")
    ] = ""
    partitions: Annotated[int, Meta(ge=1, le=1024, description="of the events topic and those like it")] = 6
    replication: Annotated[int, Meta(ge=1, le=9, description="copies of each partition of topics made by us")] = 1


class ClickHouse(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The history. Without `dsn` the embedded engine, which one process at a time can open."""

    dsn: Annotated[
        str, Meta(description="clickhouse://user:password@host:port; empty: the embedded engine", extra=_SECRET)
    ] = ""
    path: Annotated[str, Meta(min_length=1, description="folder of the embedded engine")] = "var/clickhouse"
    database: Annotated[
        str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$", description="database of all tables")
    ] = "pointsman"
    group: Annotated[str, Meta(min_length=1, description="consumer group of the history lane")] = (
        "pointsman-history"
    )
    batch_rows: Annotated[int, Meta(ge=1, le=1_000_000, description="rows an insert, at most")] = 50_000
    batch_seconds: Annotated[float, Positive, Meta(description="longest wait before an insert")] = 1.0


class Detect(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The detect lane."""

    group: Annotated[str, Meta(min_length=1, description="consumer group")] = "pointsman-detect"
    checkpoint_seconds: Annotated[float, Positive, Meta(description="between checkpoints, at most")] = 2.0
    checkpoint_events: Annotated[
        int,
        Meta(ge=1, le=10_000_000, description="events between checkpoints, at most: bounds what a crash redoes"),
    ] = 10_000
    join_grace_seconds: Annotated[
        float, Positive, Meta(description="stream time that a request waits for its route")
    ] = 2.0
    outcome_ttl_seconds: Annotated[
        float, Positive, Meta(description="stream time that a judged request is kept for its outcomes")
    ] = 300.0
    transformer_per_second: Annotated[
        float, Meta(ge=0, le=10_000, description="budget of the full sentence transformer, prompts; 0: off")
    ] = 0.0
    novelty_model: Annotated[
        str,
        Meta(description="artefact that `pointsman novelty fit` made of a fleet's prompts; empty: the shipped one"),
    ] = ""
    custody_rules: Annotated[
        str, Meta(description="YAML file of custody's rules (docs/detectors/custody.md); empty: none")
    ] = ""
    window_text: Annotated[
        bool,
        Meta(description="windows that come back travel with their text, for a week at most: transplants need it"),
    ] = False
    dead_letter_max_ratio: Annotated[
        float, Meta(gt=0, le=1, description="share of invalid events beyond which the lane stops instead")
    ] = 0.95
    dead_letter_min_count: Annotated[
        int, Meta(ge=1, le=10_000_000, description="invalid events before that share is looked at")
    ] = 100_000


class Fleet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fleet lane: findings to alerts."""

    group: Annotated[str, Meta(min_length=1, description="consumer group")] = "pointsman-fleet"
    detections: Annotated[
        str,
        Meta(description="folder of detections of your own, over those that ship; the detect lane reads it too"),
    ] = ""
    resend_seconds: Annotated[float, Positive, Meta(description="between refreshes of a firing alert")] = 60.0
    router_url: Annotated[
        str,
        Meta(
            description="scores texts for transplants: POST of {texts: [...]} gives {scores: [...]}, higher is"
            " harder; needs detect.window_text; empty: none are made",
            extra=_SECRET,
        ),
    ] = ""
    router_timeout_seconds: Annotated[float, Positive, Meta(description="for one answer of it")] = 10.0
    probes: Annotated[
        str,
        Meta(
            description="JSONL of 40 or more ordinary prompts of the fleet, with a `text` each; empty: the shipped"
        ),
    ] = ""


class Feedback(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Audit tickets, and the thresholds that move with their answers. Off without `key`: docs/feedback.md."""

    key: Annotated[
        str,
        Meta(
            description="draws and signs tickets, signs updates: 16 characters or more; empty: off", extra=_SECRET
        ),
    ] = ""
    key_id: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9._-]{1,32}$", description="names that key in each signature")
    ] = "1"
    old_keys: Annotated[
        str,
        Meta(
            description="`id:key` of former keys, with spaces between: what they signed still counts", extra=_SECRET
        ),
    ] = ""
    mode: Annotated[
        Literal["observe", "propose", "shadow", "active"],
        Meta(description="what the evidence may do: count, propose, publish beside what is in force, or move it"),
    ] = "propose"
    group: Annotated[str, Meta(min_length=1, description="consumer groups of the lane and of its relay")] = (
        "pointsman-feedback"
    )
    audit_share: Annotated[
        float, Meta(gt=0, le=1, description="share of the principals of a period of whom a request is audited")
    ] = 0.01
    audit_period_seconds: Annotated[
        float, Positive, Meta(description="stream time of one draw: a principal is drawn, then one of its requests")
    ] = 3_600.0
    audit_per_day: Annotated[int, Meta(ge=1, le=86_400, description="tickets of one principal a day, at most")] = 4
    ticket_days: Annotated[float, Meta(gt=0, le=90, description="for which a ticket may be answered")] = 14.0
    canaries: Annotated[str, Meta(description="JSONL of requests whose answer is known; empty: none")] = ""
    canary_share: Annotated[
        float, Meta(ge=0, le=1, description="canary tickets a drawn one, where there are canaries")
    ] = 0.05
    ladder: Annotated[
        str, Meta(description="models, weakest first, with spaces between: for proposals of stronger routes")
    ] = ""
    approvers: Annotated[
        str, Meta(description="`name:key` of each, with spaces between; empty: no value passes its ceiling",
                  extra=_SECRET),
    ] = ""  # fmt: skip


class Notify(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is told of alerts."""

    group: Annotated[
        str, Meta(min_length=1, description="consumer groups, one a channel: its name is put behind")
    ] = "pointsman-notify"
    console: Annotated[bool, Meta(description="write each transition to standard output")] = True
    webhook_url: Annotated[str, Meta(description="receives alerts by POST; empty: none", extra=_SECRET)] = ""
    webhook_secret: Annotated[str, Meta(description="signs what is posted (HMAC-SHA256)", extra=_SECRET)] = ""
    alertmanager_url: Annotated[
        str, Meta(description="base address of an Alertmanager (its API v2); empty: none", extra=_SECRET)
    ] = ""
    pagerduty_routing_key: Annotated[
        str, Meta(description="integration key of a PagerDuty service (Events v2); empty: none", extra=_SECRET)
    ] = ""
    pagerduty_url: Annotated[
        str, Meta(min_length=1, description="where its events go; EU accounts have another")
    ] = "https://events.pagerduty.com/v2/enqueue"
    slack_url: Annotated[
        str, Meta(description="incoming webhook of a Slack channel; empty: none", extra=_SECRET)
    ] = ""
    alerts_per_minute: Annotated[
        int,
        Meta(ge=0, le=10_000, description="alerts of one name that a channel is told one by one; 0: no cap"),
    ] = 20


class Gateway(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Publishing from a gateway; the service itself reads none of it."""

    identity_key: Annotated[
        str, Meta(description="key of the hashes of keys and users, 16 characters or more", extra=_SECRET)
    ] = ""
    identity_key_id: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9._-]{1,32}$", description="names that key in each hash")
    ] = "1"
    prompt: Annotated[
        Literal["full", "ends", "hash"],
        Meta(description="what of a prompt's text is published; with `hash` it cannot be judged"),
    ] = "ends"
    instance: Annotated[str, Meta(max_length=256, description="in the events' source; empty: the host's name")] = ""
    queue_bytes: Annotated[
        int, Meta(ge=1, le=1 << 32, description="what may wait for the brokers before events are dropped")
    ] = 32 << 20


class Guard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The check of a prompt before it is routed, in the gateway's own process."""

    fail: Annotated[
        Literal["", "open", "closed"],
        Meta(description="whether a request that could not be judged passes (open) or not; empty: no guard"),
    ] = ""
    refuse: Annotated[str, Meta(description="kinds of finding that a request must not have, by commas")] = (
        "known_trigger"
    )
    budget_ms: Annotated[float, Positive, Meta(description="longest that a request waits for its verdict")] = 50.0
    catalogue: Annotated[
        str, Meta(description="JSONL file of the triggers; with neither file the control topics are followed")
    ] = ""
    thresholds: Annotated[str, Meta(description="JSON file of thresholds by name; empty: as shipped")] = ""


class Web(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Health and metrics."""

    host: Annotated[str, Meta(min_length=1, description="address to listen at")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="port; 0: any free one")] = 8080


class Log(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The log, on standard error."""

    level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], Meta(description="least severity that is written")
    ] = "INFO"
    json: Annotated[bool, Meta(description="one JSON object a line; false: for people")] = True


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All sections."""

    kafka: Kafka = Kafka()
    clickhouse: ClickHouse = ClickHouse()
    detect: Detect = Detect()
    fleet: Fleet = Fleet()
    feedback: Feedback = Feedback()
    notify: Notify = Notify()
    gateway: Gateway = Gateway()
    guard: Guard = Guard()
    web: Web = Web()
    log: Log = Log()

    def redacted(self) -> dict[str, dict[str, Any]]:
        """All values by section and key, secrets that are set as `***`: for printing."""
        values: dict[str, dict[str, Any]] = msgspec.to_builtins(self)
        for field in all_fields():
            if field.secret and values[field.section][field.key]:
                values[field.section][field.key] = "***"
        return values


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


class SettingsError(ValueError):
    """Every problem found, each with the key and the source that it came from."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


def all_fields() -> Iterator[Field]:
    """Every key, in the order of this file."""
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
