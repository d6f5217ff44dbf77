"""Every campaign by name: how it is made, how many requests it takes, and what it should be found as."""

import random
from collections.abc import Callable
from types import MappingProxyType
from typing import NamedTuple

from loadtests.attacks import gadgets, tampered
from loadtests.attacks.known import known
from loadtests.attacks.scene import Scene
from loadtests.attacks.spoof import spoof
from loadtests.attacks.wallet import wallet
from loadtests.fleet import Ask, Fleet
from loadtests.router import DifficultyRouter


class Campaign(NamedTuple):
    """`kinds` are those of findings (detectors/kinds.py) that name the attack for what it is."""

    about: str
    make: Callable[[Scene, int], list[Ask]]
    requests: int
    kinds: tuple[str, ...]


def _known(scene: Scene, n: int) -> list[Ask]:
    from detectors.catalogue import shipped

    triggers = [entry.text for entry in shipped().triggers if entry.kind != "semantic" and entry.direction == "up"]
    return known(scene, triggers, n)


_UNSEEN = ("novel_text", "unseen_trigger")
CAMPAIGNS = MappingProxyType(
    {
        "known": Campaign("a catalogued trigger, mutated", _known, 60, ("known_trigger",)),
        "unseen": Campaign("a gadget grown against this router just now", gadgets.unseen, 60, _UNSEEN),
        "wallet": Campaign("one caller sends only the dearest", wallet, 120, ("denial_of_wallet",)),
        "spoof": Campaign("hard prompts claim to be easy", spoof, 60, ("spoofed_difficulty",)),
        "rotation": Campaign("four gadgets in turn", gadgets.rotation, 80, _UNSEEN),
        "middle": Campaign("a gadget inside the prompts", gadgets.middle, 60, _UNSEEN),
        "phrase": Campaign("a fluent phrase that lifts", gadgets.phrase, 60, (*_UNSEEN, "known_trigger")),
        "fleet_wallet": Campaign(
            "many callers grow dearer together", tampered.fleet_wallet, 600, ("fleet_spend", "denial_of_wallet")
        ),
        "caller_threshold": Campaign(
            "a caller who chooses the threshold", tampered.caller_threshold, 60, ("caller_threshold",)
        ),
        "contradiction": Campaign(
            "a keyword overrules the score", tampered.contradiction, 60, ("tier_contradiction",)
        ),
        "guardrail_gap": Campaign("fail-overs past the guardrail", tampered.guardrail_gap, 100, ("guardrail_gap",)),
        "unsafe_route": Campaign("a weak route answers unsafely", tampered.unsafe_route, 100, ("unsafe_route",)),
    }
)
KINDS = MappingProxyType({name: campaign.kinds for name, campaign in CAMPAIGNS.items()})


def plant(
    name: str, fleet: Fleet, router: DifficultyRouter, start: float, seconds: float, requests: int | None = None
) -> list[Ask]:
    """Make one campaign's asks, within `seconds` from `start`; not merged into the fleet's.

    Raises:
        ValueError: there is no campaign of this name.
    """
    if name not in CAMPAIGNS:
        raise ValueError(f"no campaign {name!r}; there are {', '.join(CAMPAIGNS)}")
    campaign = CAMPAIGNS[name]
    scene = Scene(fleet, router, random.Random(f"{fleet.seed}/{name}"), start, seconds)
    return campaign.make(scene, campaign.requests if requests is None else requests)
