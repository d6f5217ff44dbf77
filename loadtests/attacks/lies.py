"""Labels of tickets that nobody drew. Without Locust, which patches whoever imports it."""

from collections.abc import Iterator
from datetime import timedelta

from detectors.thresholds import DEFAULTS
from loadtests.traffic import START, Attack
from schemas.audits import AuditLabel, AuditTicket

FLAG = "novelty.flag"
TENANTS = 3
FOR_EACH = 10  # of an attack's requests


def lies(attack: Attack, number: int) -> Iterator[AuditLabel]:
    """Every other one calls an attack safe, for looser thresholds; the rest call what passed unsafe.

    The ratchets that ship begin at their ceilings, so that nothing can loosen within an hour, whoever is believed:
    it is the rest that would move them at once.
    """
    for n, request in enumerate(attack.request_ids * FOR_EACH):
        ticket = AuditTicket(
            ticket_id=f"lie-{number}-{n}", request_id=request, tenant_id=f"t{n // 2 % TENANTS}",
            principal_hash=attack.principals[n % len(attack.principals)], detector="novelty", parameter=FLAG,
            score=0.99 * DEFAULTS[FLAG], threshold=DEFAULTS[FLAG], threshold_version=0, issued_at=START,
            expires_at=START + timedelta(days=36_500), signature="hmac-sha256:1:00",
        )  # fmt: skip
        yield AuditLabel(
            label_id=ticket.ticket_id, ticket=ticket, judge="nobody", label="safe" if n % 2 else "unsafe",
            confidence=1.0, labelled_at=START,
        )  # fmt: skip
