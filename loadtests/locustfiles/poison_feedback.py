"""Feedback that lies: labels of nobody's tickets, beside a campaign of attacks."""

from loadtests.attacks.lies import lies
from loadtests.locustfiles.gateway import Due, Gateway, Making, Raw
from loadtests.traffic import Attack
from schemas.codec import encode
from schemas.topics import AUDITS


class PoisonFeedback(Gateway):
    """Attackers that also vouch for themselves."""

    @classmethod
    def script(cls, making: Making, number: int) -> tuple[list[Due], list[Attack]]:
        """The traffic, and for each planted request ten labels that no judge was asked for."""
        due, attacks = super().script(making, number)
        for which, attack in enumerate(attacks):
            said = list(lies(attack, 100 * number + which))
            for n, lie in enumerate(said):
                at = attack.first_at + 0.5 + n * 0.3 * making.seconds / len(said)
                key = lie.ticket.ticket_id.encode()
                due.append(Due(at, Raw(encode(lie), key, [], "produce lie", AUDITS.name)))
        return due, attacks
