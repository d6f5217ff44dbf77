"""A gadget that no catalogue has, grown against the router just before."""

from loadtests.locustfiles.gateway import Gateway


class UnseenCampaign(Gateway):
    """A campaign with an unseen trigger."""

    attack = "unseen"
    attacked = (0.6, 0.9)  # what comes back before is the fleet's usual
