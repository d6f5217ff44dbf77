"""An alert as text for people and their tools, inert: no field of an event can format, mention, link or inject."""

import re
from datetime import UTC, datetime

from schemas.alerts import Alert

# Letters and digits of any script, and what identifiers need. Left out are control, combining and direction
# characters and all that HTML, Slack, Markdown, ANSI, spreadsheets or templates give a meaning; `//` makes a link.
_UNSAFE = re.compile(r"[^\w .:,#/-]|(?<=/)/")
_UNSAFE_IN_SENTENCES = re.compile(r"[^\w .:,#/'()%;+!?-]|(?<=/)/")
_NOT_IN_LABEL_NAME = re.compile(r"[^a-zA-Z0-9_]")


def inert(text: str) -> str:
    r"""The text with every character that could act written as `\uXXXX`. Different texts stay different."""
    return _UNSAFE.sub(lambda match: _escape(match[0]), text)


def sentence(text: str) -> str:
    """A sentence that may quote names, inert, with the marks that sentences need left as they are."""
    return _UNSAFE_IN_SENTENCES.sub(lambda match: _escape(match[0]), text)


def printable(text: str) -> str:
    """For a terminal: control, format and line characters as escapes; all else as it is."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cut(text: str, most: int) -> str:
    """At most so many characters."""
    return text if len(text) <= most else text[: most - 3] + "..."


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def labels(alert: Alert) -> dict[str, str]:
    """Identity and severity as Prometheus labels: lawful names, inert values, no empty ones."""
    named = {**alert.labels, "severity": alert.severity}
    return {_label_name(name): inert(value) for name, value in sorted(named.items()) if value}


def _label_name(name: str) -> str:
    name = _NOT_IN_LABEL_NAME.sub("_", name)
    return f"_{name}" if name[:1].isdigit() or not name else name


def identity(alert: Alert) -> str:
    """The labels that tell this alert from others of its name, as `name=value`."""
    return " ".join(
        f"{inert(name)}={inert(value)}"
        for name, value in sorted(alert.labels.items())
        if value and name not in ("alertname", "category")
    )


def headline(alert: Alert) -> str:
    """Status, severity, name, what it means, whom it is about: one line."""
    named = f"[{alert.status}, {alert.severity}] {inert(alert.alertname)}: {sentence(alert.summary)}"
    return f"{named} ({identity(alert)})" if identity(alert) else named


def annotations(alert: Alert) -> dict[str, str]:
    """What is not identity: our own sentences, numbers and inert ids. Never text of a prompt."""
    values = {
        "summary": sentence(alert.summary),
        "description": description(alert),
        "alert_id": inert(alert.alert_id),
        "detector": inert(alert.detector),
        "score": f"{alert.score:.6g}",
        "threshold": f"{alert.threshold:.6g}",
        "first_request_id": inert(alert.first_request_id),
        "direction": alert.direction,
        "mitre_atlas": " ".join(alert.mitre_atlas),
        "owasp": " ".join(alert.owasp),
        "runbook_url": alert.runbook_url,
    }
    return {name: value for name, value in values.items() if value}


def description(alert: Alert) -> str:
    """How many, from how many, since when, at what extra cost: one sentence."""
    span = f"{timestamp(alert.starts_at)} to {timestamp(alert.last_seen)}"
    if not alert.principals:  # of no findings: a channel's own
        return f"{many(alert.count, 'alert')}, {span}"
    parts = [
        f"{many(alert.count, 'finding')} from {many(alert.principals, 'principal')}"
        f" of {many(alert.tenants, 'tenant')}, {span}"
    ]
    if alert.est_cost_usd is not None:
        parts.append(f"estimated extra cost {alert.est_cost_usd:.2f} USD")
    return ", ".join(parts)


def timestamp(time: datetime) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def many(number: int, noun: str) -> str:
    """`1 request`, `2 requests`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
