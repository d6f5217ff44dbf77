"""Feedback that lies: labels of nobody's tickets that call every attack safe, beside a campaign of them."""

from datetime import timedelta

from loadtests.locustfiles.gateway import Due, Gateway, Making, Raw
from loadtests.traffic import START, Attack
from schemas.audits import AuditLabel, AuditTicket
from schemas.codec import encode
from schemas.topics import AUDITS


class PoisonFeedback(Gateway):
    """Attackers that also vouch for themselves."""

    @classmethod
    def script(cls, making: Making, number: int) -> tuple[list[Due], list[Attack]]:
        """The traffic, and for each planted request ten labels that no judge was asked for."""
        due, attacks = super().script(making, number)
        for attack in attacks:
            for n, request in enumerate(attack.request_ids * 10):
                value = encode(_lie(f"lie-{number}-{n}", request, attack.principals[0]))
                at = attack.first_at + 0.5 + n * 0.3 * making.seconds / (10 * len(attack.request_ids))
                due.append(Due(at, Raw(value, request.encode(), [], "produce lie", AUDITS.name)))
        return due, attacks


def _lie(name: str, request: str, principal: str) -> AuditLabel:
    ticket = AuditTicket(
        ticket_id=name, request_id=request, tenant_id="t1", principal_hash=principal, detector="triggers",
        score=0.1, threshold=0.5, threshold_version=0, issued_at=START, expires_at=START + timedelta(days=365),
        signature="hmac-sha256:1:00",
    )  # fmt: skip
    return AuditLabel(label_id=name, ticket=ticket, judge="nobody", label="safe", confidence=1.0, labelled_at=START)
