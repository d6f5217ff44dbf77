"""What may happen to a tenant's prompts: which providers, where, kept for how long; and what is a canary."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import Meta

from schemas.events import Route

Patterns = tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...]  # as a shell's: `eu-*`
EVERYONE = "*"


class TenantRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a route may have; empty: anything. A value that the gateway does not know breaks no rule."""

    providers: Patterns = ()
    regions: Patterns = ()
    retentions: Patterns = ()
    guardrail: bool = False  # every answer, from a cache too, carries a guardrail's verdict


class RuleFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file that `detect.custody_rules` names."""

    tenants: dict[str, TenantRules] = {}  # by tenant_id; `*`: all that are not named
    internal_providers: Patterns = ()  # what goes to these does not leave
    canaries: dict[str, Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]] = {}  # name -> SHA-256 of the string
    recognise: bool = True  # look for secrets and personal numbers in prompts too


class Rules:
    """A rule file ready to be asked: every question is one look-up."""

    def __init__(self, file: RuleFile | None = None) -> None:
        """None: no rule, and nothing is looked for in prompts."""
        self.file = file or RuleFile(recognise=False)
        self.recognises = self.file.recognise or bool(self.file.canaries)
        self._everyone = self.file.tenants.get(EVERYONE)
        self._check = lru_cache(maxsize=4_096)(self._check_uncached)
        self._is_internal = lru_cache(maxsize=1_024)(lambda name: _matches(name, self.file.internal_providers))

    def judges(self, tenant: str) -> bool:
        """Whether there is any rule on the tenant's routes."""
        return tenant in self.file.tenants or self._everyone is not None

    def needs_guardrail(self, tenant: str) -> bool:
        """Whether the tenant's answers must carry a guardrail's verdict."""
        rules = self.file.tenants.get(tenant) or self._everyone
        return rules is not None and rules.guardrail

    def leaves(self, route: Route) -> bool:
        """Whether the prompt leaves the house: to another's provider, and not answered from a cache."""
        return not route.cache_hit and not self._is_internal(route.provider_name)

    def broken(self, tenant: str, route: Route) -> str:
        """`provider`, `region` or `retention`: the rule that the route breaks; empty: none that is known."""
        if not self.judges(tenant):
            return ""
        return self._check(tenant, route.provider_name, route.provider_region, route.provider_retention)

    def _check_uncached(self, tenant: str, provider: str, region: str, retention: str) -> str:
        rules = self.file.tenants.get(tenant) or self._everyone
        if rules is None:
            return ""
        for name, value, allowed in (
            ("provider", provider, rules.providers),
            ("region", region, rules.regions),
            ("retention", retention, rules.retentions),
        ):
            if value and allowed and not _matches(value, allowed):
                return name
        return ""


def _matches(value: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)
