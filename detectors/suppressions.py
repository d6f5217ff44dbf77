"""The suppression rules in force at a moment of stream time."""

from collections.abc import Iterator, Mapping

from schemas.suppressions import Suppression


class Suppressions:
    """Rules by id, past ones too: an old part of the log may be judged again.

    Shared by a worker's partitions; replaced whole, so that a reader needs no lock.
    """

    def __init__(self, rules: Mapping[str, Suppression] | None = None) -> None:
        self._rules = dict(rules or {})

    def put(self, rule: Suppression) -> None:
        """Take a rule over, also in place of the one with its id."""
        self._rules = {**self._rules, rule.suppression_id: rule}

    def remove(self, suppression_id: str) -> None:
        """Forget a rule."""
        self._rules = {name: rule for name, rule in self._rules.items() if name != suppression_id}

    def __iter__(self) -> Iterator[Suppression]:
        return iter(self._rules.values())

    def over(self, labels: Mapping[str, str], now_ms: int) -> str:
        """The rule that an alert falls under, the one that lasts longest; empty: none."""
        found = [
            (rule.ends_at, rule.suppression_id)
            for rule in self._rules.values()
            if rule.starts_at.timestamp() * 1000 <= now_ms < rule.ends_at.timestamp() * 1000
            and rule.labels.items() <= labels.items()
        ]
        return max(found)[1] if found else ""
