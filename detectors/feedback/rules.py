"""What an installation allows the feedback to do."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

from detectors.ratchet import RatchetConfig
from detectors.thresholds import DEFAULTS
from detectors.tickets import MOST_WEIGHT, Canary
from schemas.thresholds import looser

Mode = Literal["observe", "propose", "shadow", "active"]

# Where evidence may move a threshold. The ceiling is the value that ships: evidence alone never passes it.
RATCHETS: Mapping[str, RatchetConfig] = MappingProxyType(
    {
        "difficulty.spoofed": RatchetConfig(
            grid=(3.0, 3.5, 4.0, 4.5, 5.0), start=4, ceiling=4, weight_max=MOST_WEIGHT
        ),
        "steering.evidence": RatchetConfig(
            grid=(7.0, 7.75, 8.5, 9.25, 10.0), start=4, ceiling=4, weight_max=MOST_WEIGHT
        ),
        "triggers.bits": RatchetConfig(
            grid=(18.0, 19.0, 20.0, 21.0, 22.0), start=4, ceiling=4, weight_max=MOST_WEIGHT
        ),
        "novelty.flag": RatchetConfig(
            grid=(0.98, 0.9875, 0.99, 0.9925, 0.995), start=4, ceiling=4, weight_max=MOST_WEIGHT
        ),
    }
)


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the feedback lane, as its processor needs them."""

    key: str  # of tickets and links (`schemas.signatures.derived`)
    key_id: str = "1"
    old_keys: Mapping[str, str] = {}  # key id -> key: what they signed still counts
    mode: Mode = "propose"
    approvers: Mapping[str, str] = {}  # name -> key; where there are any, every decision must be signed
    canaries: tuple[Canary, ...] = ()
    silence_ms: int = 86_400_000  # of stream time with tickets and no answer, until it is said
    ratchets: Mapping[str, RatchetConfig] = RATCHETS
    ladder: tuple[str, ...] = ()  # models, weakest first, for proposals of routes

    def beyond(self, parameter: str, value: float) -> bool:
        """Whether a value lies beyond its ceiling."""
        ceiling = self.ceiling(parameter)
        return ceiling is not None and looser(parameter, value, ceiling)

    def ceiling(self, parameter: str) -> float | None:
        """The value that only two approvers may pass; None for what is decided about routes."""
        ratchet = self.ratchets.get(parameter)
        if ratchet is not None:
            return ratchet.grid[ratchet.ceiling]
        return DEFAULTS.get(parameter)
