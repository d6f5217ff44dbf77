"""A fleet's ordinary traffic, with a catalogued trigger in a hundredth of it."""

from loadtests.locustfiles.gateway import Gateway


class Steady(Gateway):
    """As it comes."""
