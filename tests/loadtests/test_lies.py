"""The lying labels of the load scenario: refused as they are, and strong enough to show if they were not."""

from msgspec.structs import replace

from detectors.feedback import RATCHETS as SHIPPED
from loadtests.attacks.lies import FLAG, FOR_EACH, lies
from loadtests.load.report import Feedback as Found
from loadtests.traffic import Attack
from schemas.signatures import derived, signed
from schemas.topics import AUDITS
from tests.detectors.feedback.log import KEY, Log

REQUESTS = [f"r{n}" for n in range(16)]  # as many as the scenario's short form plants
ATTACK = Attack("known", ["known_trigger"], principals=[f"p{n}" for n in range(5)], request_ids=REQUESTS)


def test_each_lie_is_refused_and_would_move_what_ships_were_its_ticket_drawn() -> None:
    log, believed = Log(mode="active", ratchets=SHIPPED), Log(mode="active", ratchets=SHIPPED)
    for lie in lies(ATTACK, 0):
        log.append(AUDITS, lie)
        drawn = signed(lie.ticket, derived(KEY, "tickets"), "1")
        believed.append(AUDITS, replace(lie, ticket=drawn))
    feedback, _ = log.applied()
    assert feedback.counters["dead_letters.audit.bad_ticket"] == len(REQUESTS) * FOR_EACH
    assert log.links() == []
    link = believed.links()[0]
    assert (link.parameter, link.mode, link.direction) == (FLAG, "active", "tighten")
    assert link.n_trusted > 0


def test_labels_that_were_not_refused_or_moved_anything_fail_the_run() -> None:
    assert Found(labels=160, refused=160, misled=0, loosened=0).problems == []
    for fault in ({"refused": 159}, {"misled": 1}, {"loosened": 1}):
        assert len(Found(**{"labels": 160, "refused": 160, "misled": 0, "loosened": 0, **fault}).problems) == 1
