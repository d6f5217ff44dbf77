"""What a detection is: a rule about findings, in Panther's keys: when they are an alert, and how it reads."""

import operator
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from string import Formatter
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from detectors.detections.correlation import Correlation, Count, check_fields, milliseconds
from detectors.kinds import KINDS
from schemas.alerts import Alert
from schemas.clickhouse import named
from schemas.codec import stable_id
from schemas.events import Time
from schemas.verdicts import Category, Finding, Severity

SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")

_FINDING = frozenset(Finding.__struct_fields__)
_NUMBERED = re.compile(r"(\d+)\. ")
_QUERY = re.compile(r"pointsman query (\w+)((?: --param \w+=\S+)*)")
_PARAM = re.compile(r"--param (\w+)=")

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "Equals": operator.eq,
    "DoesNotEqual": operator.ne,
    "IsIn": lambda value, choices: value in choices,
    "IsNotIn": lambda value, choices: value not in choices,
    "StartsWith": lambda value, start: bool(value.startswith(start)),
    "IsGreaterThan": operator.gt,
    "IsGreaterThanOrEquals": operator.ge,
    "IsLessThan": operator.lt,
    "IsLessThanOrEquals": operator.le,
    "Exists": lambda value, _: value not in ("", None, []),
    "DoesNotExist": lambda value, _: value in ("", None, []),
}


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="pascal"):
    """Panther's keys are in PascalCase."""


class Condition(_Part, frozen=True, kw_only=True):
    """One field against one value. A number that is not known fulfils no comparison."""

    key_path: str
    condition: Literal[
        "Equals", "DoesNotEqual", "IsIn", "IsNotIn", "StartsWith", "IsGreaterThan", "IsGreaterThanOrEquals",
        "IsLessThan", "IsLessThanOrEquals", "Exists", "DoesNotExist",
    ]  # fmt: skip
    value: str | float | bool | tuple[str | float, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse a value that the operator cannot take."""
        wanted: type | tuple[type, ...] = (str, float, int)
        if self.condition.endswith("Exist") or self.condition == "Exists":
            wanted = type(None)
        elif self.condition.endswith("In"):
            wanted = tuple
        elif self.condition == "StartsWith":
            wanted = str
        elif "Than" in self.condition:
            wanted = (float, int)
        if not isinstance(self.value, wanted):
            raise ValueError(f"`Value` {self.value!r} is none for {self.condition}")

    def holds(self, record: msgspec.Struct) -> bool:
        """Whether it is so of a finding or an alert."""
        value = getattr(record, self.key_path)
        if value is None and "Exist" not in self.condition:
            return False
        return _OPERATORS[self.condition](value, self.value)


class DynamicSeverity(_Part, frozen=True, kw_only=True):
    """Another severity once all conditions hold of the alert: its count, principals, est_cost_usd, score, ..."""

    change_to: Severity
    conditions: Annotated[tuple[Condition, ...], Meta(min_length=1)]


class Campaign(_Part, frozen=True, kw_only=True):
    """From so many principals on the alert is a campaign, and stands for its members' alerts of the rules named."""

    members: Annotated[int, Meta(ge=1, le=1000)] = 2
    inhibits: tuple[str, ...] = ()  # RuleIDs


class Reports(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True,
    rename={"mitre_atlas": "MITRE ATLAS", "owasp": "OWASP LLM"},
):  # fmt: skip
    """Ids in public taxonomies."""

    mitre_atlas: tuple[Annotated[str, Meta(pattern=r"^AML\.TA?\d{4}(\.\d{3})?$")], ...] = ()
    owasp: tuple[Annotated[str, Meta(pattern=r"^LLM\d\d:20\d\d$")], ...] = ()


class Example(_Part, frozen=True, kw_only=True):
    """Findings in order, and whether they are an alert. `Log` gives their fields, and `at` (`90s`, `2h`)."""

    name: str
    expected_result: bool
    log: Annotated[tuple[dict[str, Any], ...], Meta(min_length=1)]
    severity: Severity | None = None  # of the alert

    def __post_init__(self) -> None:
        """Refuse what is no field of a finding."""
        for entry in self.log:
            if unknown := entry.keys() - _FINDING - {"at"}:
                raise ValueError(f"findings have no field `{min(unknown)}`")
            milliseconds(entry.get("at", "0s"))


def _key(name: str) -> str:
    return "RuleID" if name == "rule_id" else "".join(word.capitalize() for word in name.split("_"))


class Detection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=_key, dict=True):
    """One file. Alerts of it are one for each group: of `GroupBy`, or of the correlation's `group-by`."""

    rule_id: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{2,63}$")]
    display_name: Annotated[str, Meta(min_length=1, max_length=200)]
    enabled: bool = True
    log_types: Annotated[tuple[str, ...], Meta(min_length=1)]  # kinds of finding
    detection: tuple[Condition, ...] = ()  # all must hold of a finding, or it is not taken
    group_by: tuple[str, ...] = ()
    threshold: Annotated[int, Meta(ge=1, le=1000)] = 1  # findings within the dedup period
    correlation: Correlation | None = None  # in place of group_by and threshold
    dedup_period_minutes: Annotated[float, Meta(gt=0, le=10_080)] = 15.0  # quiet for so long: over
    severity: Severity
    dynamic_severities: tuple[DynamicSeverity, ...] = ()
    campaign: Campaign | None = None
    reports: Reports = Reports()
    runbook: str
    reference: str = ""  # an address, in alerts as `runbook_url`
    summary_attributes: tuple[str, ...] = ()
    tests: Annotated[tuple[Example, ...], Meta(min_length=2)]

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if unknown := set(self.log_types) - set(KINDS):
            raise ValueError(f"`LogTypes`: there is no kind of finding `{min(unknown)}`")
        if self.correlation and (self.group_by or self.threshold > 1):
            raise ValueError("`Correlation` has its own group-by and condition: no GroupBy or Threshold beside it")
        check_fields((*self.group_by, *self.summary_attributes))
        _check_keys(self.detection, Finding)
        for dynamic in self.dynamic_severities:
            _check_keys(dynamic.conditions, Alert)
        if len({test.expected_result for test in self.tests}) != 2:
            raise ValueError("`Tests`: one that alerts and one that does not are needed")
        _check_runbook(self.runbook)

    @property
    def category(self) -> Category:
        """Of its alerts."""
        return KINDS[self.log_types[0]]

    @cached_property
    def when(self) -> Correlation:
        """The correlation, also where a threshold says it."""
        if self.correlation:
            return self.correlation
        timespan = f"{round(self.dedup_period_minutes * 60) or 1}s"
        count = Count(gte=self.threshold)
        return Correlation(type="event_count", group_by=self.group_by, timespan=timespan, condition=count)

    @property
    def quiet_ms(self) -> int:
        """Without a finding for so long, what fires is over."""
        return round(self.dedup_period_minutes * 60_000)

    def takes(self, finding: Finding) -> bool:
        """Whether the finding is one for this detection."""
        return finding.kind in self.log_types and all(condition.holds(finding) for condition in self.detection)

    def labels(self, finding: Finding) -> dict[str, str]:
        """The identity of the alert that a finding belongs to."""
        group = {name: str(getattr(finding, name)) for name in self.when.group_by}
        return {"alertname": self.rule_id, "category": self.category, **group}

    def severity_of(self, alert: Alert) -> Severity:
        """What the conditions say of it, the base otherwise."""
        said = [d.change_to for d in self.dynamic_severities if all(c.holds(alert) for c in d.conditions)]
        return max(said, key=SEVERITIES.index) if said else self.severity

    def addressed(self, finding: Finding) -> Finding:
        """A copy for this detection's alert: under its identity, and an id that names both."""
        return msgspec.structs.replace(
            finding,
            finding_id=stable_id(finding.finding_id, self.rule_id),
            labels=self.labels(finding),
            severity=self.severity,
            category=self.category,
        )


def _check_keys(conditions: tuple[Condition, ...], of: type[msgspec.Struct]) -> None:
    for condition in conditions:
        if condition.key_path not in of.__struct_fields__:
            raise ValueError(f"`KeyPath`: {of.__name__.lower()}s have no field `{condition.key_path}`")


# --- runbooks

# What a step may name: an alert's fields that are one text, or a time.
PLACEHOLDERS = frozenset(
    info.name for info in msgspec.structs.fields(Alert) if info.type in (str, Time) or info.name == "direction"
)


def _check_runbook(text: str) -> None:
    steps = [line for line in text.splitlines() if line.strip() and not line.startswith(" ")]
    numbers = [match[1] if (match := _NUMBERED.match(step)) else "none" for step in steps]
    if not steps or numbers != [str(number) for number in range(1, len(steps) + 1)]:
        raise ValueError("`Runbook`: steps are numbered 1., 2., ...; their further lines are indented")
    for _, name, _, _ in Formatter().parse(text):
        if name is not None and name not in PLACEHOLDERS:
            raise ValueError(f"`Runbook`: alerts have no text or time `{{{name}}}`")
    queries = named.load()
    for query, params in _QUERY.findall(text):
        if query not in queries:
            raise ValueError(f"`Runbook`: there is no query `{query}`")
        known = {parameter.name for parameter in queries[query].parameters}
        if unknown := set(_PARAM.findall(params)) - known:
            raise ValueError(f"`Runbook`: {query} has no parameter `{min(unknown)}`")
