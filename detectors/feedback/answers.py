"""Which labels count: those that answer a ticket of ours, in time, for the first time; how good each judge is."""

from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Literal

import msgspec

from detectors.feedback.rules import Rules
from detectors.ratchet.evidence import share_ucb
from detectors.timetable import Timetable
from schemas.audits import AuditLabel, AuditTicket
from schemas.signatures import derived, signer

MOST_ANSWERED = 200_000  # tickets; beyond, the oldest are given up, and answers to any as old are refused
MOST_JUDGES = 256
LEAST_CANARIES = 30  # of each kind, before a judge counts as measured
LEAST_GOOD = 0.5  # sensitivity or specificity; a judge below is not listened to
JUDGE_ERROR = 0.01  # chance that what is said of a judge is ever better than it is, however often one looks
STEP = 0.05  # sensitivity is rounded down to it, so that the rules do not change with every canary
WORSE = 1_000.0  # canaries of a judge that is as good as said, until it is called worse: at least, in the mean

_ANSWERED, _JUDGES, _HORIZON = b"t/", b"j/", b"horizon"

Result = Literal["counted", "canary", "worse", "redelivered", "unfit"]


class BadTicket(ValueError):
    """A label that answers no ticket of ours: `stage` (forged, expired, replayed) and why, without its content."""

    def __init__(self, stage: str, detail: str) -> None:
        self.stage = stage
        super().__init__(detail)


class Record(msgspec.Struct, gc=False):
    """What is known of a judge: answers counted, and canaries by their known answer and how many it got right.

    Bounds hold at all times at once (`share_ucb`), since they are read after every canary. They are of a judge that
    stays as it is, so an e-detector (Shin, Ramdas and Rinaldo, arXiv:2203.03532) bets that it misses more than it
    should; when that wins, what was known of its sensitivity is dropped, and it is measured anew.
    """

    labels: int = 0
    unsafe: int = 0
    caught: int = 0
    safe: int = 0
    passed: int = 0
    doubt: float = 0.0  # the e-detector

    def take_unsafe(self, found: bool) -> bool:
        """Count a canary that is unsafe in; True where the judge is no longer what it was."""
        if self.measured:
            allowed = 1 - self.sensitivity
            self.doubt = (1 + self.doubt) * (1 - allowed if found else 2 - allowed)
            if self.doubt >= WORSE:
                self.unsafe, self.caught, self.doubt = 1, int(found), 0.0
                return True
        self.unsafe, self.caught = self.unsafe + 1, self.caught + found
        return False

    @property
    def measured(self) -> bool:
        """Whether there were enough canaries whose answer is unsafe."""
        return self.unsafe >= LEAST_CANARIES

    @property
    def sensitivity(self) -> float:
        """Lower bound of the share of unsafe requests that it finds; chance 1 - `JUDGE_ERROR` at all times."""
        return 1 - _at_most(self.unsafe - self.caught, self.unsafe)

    @property
    def fit(self) -> bool:
        """False once it is known to be no better than a guess, either way."""
        deaf = self.measured and _at_most(self.caught, self.unsafe) < LEAST_GOOD
        wolf = self.safe >= LEAST_CANARIES and _at_most(self.passed, self.safe) < LEAST_GOOD
        return not deaf and not wolf


def milliseconds(time: datetime) -> int:
    """Since 1970."""
    return round(time.timestamp() * 1000)


@lru_cache(maxsize=4 * MOST_JUDGES)
def _at_most(hits: int, number: int) -> float:
    return share_ucb(hits, number, JUDGE_ERROR)


_encode = msgspec.msgpack.Encoder().encode
_decode_answered = msgspec.msgpack.Decoder(tuple[int, int]).decode
_decode_record = msgspec.msgpack.Decoder(Record).decode


class Answers:
    """State: the tickets that were answered and have not expired, and each judge's record."""

    def __init__(self, rules: Rules) -> None:
        self.judges: dict[str, Record] = {}
        keys = {**rules.old_keys, rules.key_id: rules.key}
        self._keys = {key_id: derived(key, "tickets") for key_id, key in keys.items()}
        self._known = {(c.tenant_id, c.request_id, c.detector): c.label for c in rules.canaries}
        self._answered: dict[str, tuple[int, int]] = {}  # ticket -> when it expires, digest of the label's id
        self._expiries = Timetable()  # of the answered; derived
        self._horizon = 0  # tickets that expire by then are refused: their answers may be forgotten
        self._changed: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._answered)

    def is_ours(self, ticket: AuditTicket) -> bool:
        """Whether a key of ours has signed it."""
        return signer(ticket, self._keys) is not None

    def has(self, ticket_id: str) -> bool:
        """Whether a ticket that has not expired was answered."""
        return ticket_id in self._answered

    def take(self, label: AuditLabel, now_ms: int) -> Result:
        """Take a label at stream time; what it was good for. `worse`: a canary, by which its judge is found out.

        Raises:
            BadTicket: it answers no ticket that it may.
        """
        ticket = label.ticket
        if not self.is_ours(ticket):
            raise BadTicket("forged", "the ticket is not as it was signed")
        expires_ms = milliseconds(ticket.expires_at)
        if expires_ms <= max(now_ms, self._horizon):
            raise BadTicket("expired", "the ticket has expired")
        digest = int.from_bytes(blake2b(label.label_id.encode("utf-8", "surrogatepass"), digest_size=7).digest())
        before = self._answered.get(ticket.ticket_id)
        if before is not None:
            if before[1] == digest:
                return "redelivered"
            raise BadTicket("replayed", "the ticket was answered before")
        self._answered[ticket.ticket_id] = expires_ms, digest
        self._expiries.set(ticket.ticket_id, expires_ms)
        self._changed[_ANSWERED + ticket.ticket_id.encode("utf-8", "surrogatepass")] = None
        return self._judge(label)

    def _judge(self, label: AuditLabel) -> Result:
        if label.judge not in self.judges and len(self.judges) >= MOST_JUDGES:
            return "unfit"
        record = self.judges.setdefault(label.judge, Record())
        self._changed[_JUDGES + label.judge.encode("utf-8", "surrogatepass")] = None
        ticket = label.ticket
        known = self._known.get((ticket.tenant_id, ticket.request_id, ticket.detector))
        if known is not None:
            was_fit, worse, right = record.fit, False, label.label == known
            if label.label != "unknown" and known == "unsafe":
                worse = record.take_unsafe(right)
            elif label.label != "unknown":
                record.safe, record.passed = record.safe + 1, record.passed + right
            return "worse" if worse or (was_fit and not record.fit) else "canary"
        if not record.fit:
            return "unfit"
        record.labels += 1
        return "counted"

    def sensitivity(self) -> float | None:
        """Of the worst judge whose answers count, rounded down; None while one of them is not measured.

        A judge that is unfit counts no longer: what it said was bet on at the bound that was known of it then.
        """
        counted = [record for record in self.judges.values() if record.labels and record.fit]
        if not counted or not all(record.measured for record in counted):
            return None
        return max(STEP, round(int(min(record.sensitivity for record in counted) / STEP) * STEP, 2))

    def expire(self, now_ms: int) -> None:
        """Forget answers to tickets that have expired: another answer to one is refused for that."""
        gone = self._expiries.due(now_ms)
        while len(self._expiries) > MOST_ANSWERED:
            self._horizon = int(self._expiries.soonest or 0)
            self._changed[_HORIZON] = None
            gone += self._expiries.due(self._horizon)
        for name in gone:
            del self._answered[name]
            self._changed[_ANSWERED + name.encode("utf-8", "surrogatepass")] = None

    # --- state

    def changes(self) -> Iterator[tuple[bytes, bytes | None]]:
        """State records that changed since the last call."""
        changed, self._changed = self._changed, {}
        for key in changed:
            yield key, self._packed(key)

    def snapshot(self) -> Iterator[tuple[bytes, bytes]]:
        """The whole state."""
        keys = [_ANSWERED + name.encode("utf-8", "surrogatepass") for name in self._answered]
        keys += [_JUDGES + name.encode("utf-8", "surrogatepass") for name in self.judges]
        for key in (*keys, *([_HORIZON] if self._horizon else [])):
            yield key, self._packed(key) or b""

    def load(self, key: bytes, value: bytes | None) -> bool:
        """Take over a record of `changes`; False when it is not one of them."""
        name = key[2:].decode("utf-8", "surrogatepass")
        if key == _HORIZON:
            self._horizon = int.from_bytes(value or b"")
        elif key.startswith(_ANSWERED):
            self._answered.pop(name, None)
            if value is not None:
                self._answered[name] = _decode_answered(value)
            self._expiries.set(name, None if value is None else self._answered[name][0])
        elif key.startswith(_JUDGES):
            if value is not None:
                self.judges[name] = _decode_record(value)
        else:
            return False
        return True

    def _packed(self, key: bytes) -> bytes | None:
        name = key[2:].decode("utf-8", "surrogatepass")
        if key == _HORIZON:
            return self._horizon.to_bytes(8)
        if key.startswith(_JUDGES):
            return _encode(self.judges[name])
        answered = self._answered.get(name)
        return None if answered is None else _encode(answered)
