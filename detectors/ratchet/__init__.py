"""Thresholds that outcomes move: tightened fast, loosened slowly, and never by whoever is watched.

One `Ratchet` a scope (a detector's flag threshold, of a route or a tenant where they have their own). A request is
flagged when its score is at least the threshold, so that *higher is looser*, and what is bounded is the *miss
risk*: the share of requests that are unsafe and score below the threshold, principals weighing equally.

`terms` (what goes in and comes out) -> `evidence` (the e-processes) -> `policy` (when a threshold moves) ->
`nested` (tenants inside the fleet).
"""

from detectors.ratchet.nested import FLEET, Nested
from detectors.ratchet.policy import Ratchet
from detectors.ratchet.terms import Move, RatchetConfig, TrustedLabel, UntrustedReport

__all__ = ["FLEET", "Move", "Nested", "Ratchet", "RatchetConfig", "TrustedLabel", "UntrustedReport"]
