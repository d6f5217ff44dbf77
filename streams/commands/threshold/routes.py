"""Where labels ask for a guardrail or a stronger route."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import msgspec

from detectors.routing import Economy, RoutingProposal
from schemas.thresholds import ThresholdScope
from streams import chain
from streams.chain import DecisionRefused
from streams.commands.brokers import on_brokers, print_json
from streams.commands.config import load_settings
from streams.commands.stores import on_store
from streams.commands.threshold.decide import How, carried_out, deciding
from streams.notifiers.text import printable


@click.command()
@click.option("--days", default=7.0, show_default=True, help="Of history that costs and volumes are taken from.")
@click.option("--guardrail-usd", type=float, help="What a guardrail costs a request.")
@click.option("--submit", is_flag=True, help="Propose what is found, each to be approved; wants a --reason.")
@deciding(reason_required=False)
def routes(days: float, guardrail_usd: float | None, submit: bool, how: How) -> None:
    """Show for which category on which route labels ask for a guardrail or a stronger route, and its cost a day."""
    from streams.lanes.feedback import rules

    if submit and not how.reason:
        raise click.UsageError("--submit wants a --reason")
    settings = load_settings(how.path)
    allowed = rules(settings)
    feedback = on_brokers(how.path, lambda kafka: chain.state(kafka, allowed))
    since = {"since": datetime.now(UTC) - timedelta(days=days)}
    rows = on_store(settings.clickhouse, lambda store: store.query(_ECONOMY, since)).records()
    found = [
        (router, proposal)
        for router, routing in sorted(feedback.routing.items())
        for proposal in routing.proposals(_economy(router, rows, days, guardrail_usd))
    ]
    shown, refused = [], False
    for router, proposal in found:
        item = {"router_name": router, **msgspec.to_builtins(proposal)}
        if submit:
            try:
                item |= _submitted(router, proposal, allowed.ladder, how)
            except DecisionRefused as error:
                item["refused"], refused = str(error), True
        shown.append(item)
        if not how.as_json:
            click.echo(_line(item, _said(proposal)))
    if how.as_json:
        print_json(shown)
    elif not found:
        click.echo("no labels ask for a change of a route")
    if refused:
        raise SystemExit(1)


def _submitted(router: str, proposal: RoutingProposal, ladder: Sequence[str], how: How) -> dict[str, Any]:
    because = how._replace(reason=f"{how.reason}; {_said(proposal)}"[:1024])
    return carried_out(
        "propose", because, parameter=f"routing.{proposal.kind}",
        value=1.0 if proposal.kind == "guardrail" else float(ladder.index(proposal.to_route)),
        scope=ThresholdScope(router_name=router, route=proposal.route, category=proposal.category),
        cost_usd_per_day=proposal.cost_usd_per_day,
    )  # fmt: skip


def _line(item: Mapping[str, Any], said: str) -> str:
    places = " ".join(printable(item[name]) for name in ("router_name", "route", "category"))
    if "refused" in item:
        became = f"; refused: {printable(item['refused'])}"
    elif item.get("links"):
        became = f"; proposed as version {item['links'][-1].version}"
    else:
        became = "; would be proposed" if "dry_run" in item else ""
    return f"{places}: {said}{became}"


def _said(proposal: RoutingProposal) -> str:
    what = "a guardrail" if proposal.kind == "guardrail" else f"the route {printable(proposal.to_route)}"
    usd = proposal.cost_usd_per_day
    return (
        f"{proposal.cause} {proposal.seen:.2%}, allowed {proposal.allowed:.2%},"
        f" in {proposal.n_labels} labels of {proposal.n_principals} principals: {what},"
        f" {'cost not known' if usd is None else f'{usd:.2f} USD a day'}"
    )


def _economy(router: str, rows: list[dict[str, Any]], days: float, guardrail_usd: float | None) -> Economy:
    """What a router's routes have cost and taken."""
    ours = [row for row in rows if row["router_name"] == router]
    return Economy(
        route_usd=_usd_of_routes(ours),
        guardrail_usd=guardrail_usd,
        requests_per_day={(row["route"], row["category"]): row["requests"] / days for row in ours},
    )


def _usd_of_routes(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean cost of a request of each route, over all categories; none where no cost is known."""
    usd: dict[str, float] = {}
    for route in {row["route"] for row in rows}:
        priced = [row for row in rows if row["route"] == route and row["priced"]]
        if priced:
            usd[route] = sum(row["usd"] for row in priced) / sum(row["priced"] for row in priced)
    return usd


_ECONOMY = """
SELECT router_name, selected_model AS route, category, count() AS requests,
    countIf(has_usd) AS priced, sum(sum_usd) AS usd
FROM
(
    SELECT r.request_id AS request_id, r.principal_hash AS principal_hash, any(r.router_name) AS router_name,
        any(r.selected_model) AS selected_model, any(r.category) AS category,
        sum(o.cost_usd) AS sum_usd, max(o.has_cost_usd) AS has_usd
    FROM (SELECT * FROM routes FINAL WHERE event_time >= {since:DateTime64(3, 'UTC')}) AS r
    LEFT JOIN
    (
        SELECT request_id, principal_hash, cost_usd, has_cost_usd FROM outcomes FINAL
        WHERE event_time >= {since:DateTime64(3, 'UTC')}
    ) AS o USING (request_id, principal_hash)
    GROUP BY request_id, principal_hash
)
GROUP BY router_name, route, category
ORDER BY router_name, route, category
"""
