"""A catalogued trigger, mutated, by a few callers: as much of it as --attack-ratio says."""

from loadtests.locustfiles.gateway import Gateway


class TriggerCampaign(Gateway):
    """A campaign with a known trigger."""

    attack = "known"
