"""What the commands about thresholds share: the topic's links, and how a link is told."""

import click

from schemas.codec import InvalidRecord
from schemas.thresholds import ThresholdUpdate
from streams import chain
from streams.notifiers.text import printable, timestamp
from streams.settings import Kafka


async def read_links(kafka: Kafka) -> chain.Latest:
    """The topic's links; what is none ends the command."""
    try:
        return await chain.latest(kafka)
    except InvalidRecord as error:
        raise click.ClickException(f"the topic of thresholds: {error}") from error


def name_of(link: ThresholdUpdate) -> str:
    """Parameter and scope."""
    scope = link.scope
    places = [place for place in (scope.router_name, scope.route, scope.category, scope.tenant_id) if place]
    return " ".join([link.parameter, *places])


def line_of(link: ThresholdUpdate) -> str:
    """A link in one line, inert."""
    old = "-" if link.old_value is None else f"{link.old_value:g}"
    facts = [f"{link.version:>5} {timestamp(link.time)} {printable(name_of(link))}: {old} to {link.new_value:g}"]
    facts.append(f"{link.mode}, {link.cause}, by {printable(link.actor)}")
    if link.approver:
        missing = ", and takes another" if link.mode == "proposed" else ""
        did = "rejected" if link.mode == "rejected" else "approved"
        facts.append(f"{did} by {printable(link.approver)}{missing}")
    if link.n_trusted:
        facts.append(f"{link.n_trusted} labels of {link.n_principals} principals, e-value {link.e_value:.3g}")
    if link.cost_usd_per_day is not None:
        facts.append(f"{link.cost_usd_per_day:.2f} USD a day")
    if link.expires_at is not None:
        facts.append(f"until {timestamp(link.expires_at)}")
    return "; ".join([*facts, printable(link.reason)])
