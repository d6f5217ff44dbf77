"""Which requests are audited: a secret draw of principals, then of one of their requests; and untrusted reports.

A draw that took rows would let a flood of harmless requests hide the rest, so every principal counts once in a
sampling period, however much it sends. Whether a principal is drawn, about which detector it is asked, and which
request is taken are coins of a keyed hash, so that nobody without the key can tell which request will be
looked at, and a replay draws the same. Of a drawn principal's requests one is taken, from a stratum of how near the
score is to the threshold; its weight (inverse probability; Horvitz and Thompson, JASA 1952) makes up for that:

    chance of a stratum = 1/2 of its share of the requests + 1/2 of its boost;    weight = share / chance <= 2

The half that goes by the shares keeps weights bounded (defensive mixture; Hesterberg, Technometrics 1995). The mean
weight is 1, and a weighted mean over labels is one over principals, each period of each counting once. Tickets of a
period are issued in the order of another coin: in that of names, a run of labels would be of one tenant's requests,
and evidence that is looked at after every label would take it for the fleet's.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Literal

import msgspec

from detectors.audited import AUDITED
from detectors.keyed import compound_key
from detectors.processor import Output
from detectors.thresholds import Thresholds
from schemas.audits import AuditTicket, Stratum, UnsafeReport
from schemas.codec import encode, stable_id
from schemas.events import Outcome, Request, Route
from schemas.signatures import derived, signed
from schemas.topics import REPORTS, TICKETS
from schemas.verdicts import Verdict

STRATA: tuple[Stratum, ...] = ("flagged", "near", "rest")
BOOSTS = (0.25, 0.5, 0.25)  # of each stratum, shared out among those that are not empty
MOST_WEIGHT = 2.0
NEAR_SHARE = 0.9  # of the threshold, from which a score is near it
MOST_DRAWN = 10_000  # principals of one partition and period
MOST_REPORTED = 10_000  # tenants, routers and routes of one partition and period
MOST_OF_TENANT = 1_000  # of them: whoever makes up names has its own dropped, not everybody's

_DAY_MS = 86_400_000
_COINS = 1 << 63  # a coin is below; msgpack has no more than 64 bits
_DRAWN, _REPORTED = "p/", "u/"
_NAMES_BYTES = 16  # of router, route and category in a key


class Canary(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A request whose answer is known: what a ticket about it says, and the answer."""

    request_id: str
    tenant_id: str
    principal_hash: str
    detector: str
    score: float
    label: Literal["safe", "unsafe"]
    router_name: str = ""
    route: str = ""
    category: str = ""
    difficulty_score: float | None = None


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How tickets are drawn; times in milliseconds of stream time."""

    key: str
    key_id: str = "1"
    share: float = 0.01  # of the principals of a period
    period_ms: int = 3_600_000
    per_day: int = 4  # tickets of a principal
    ticket_ms: int = 14 * _DAY_MS
    canaries: tuple[Canary, ...] = ()
    canary_share: float = 0.05  # canary tickets a drawn one


class Drawn(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """A principal that was drawn: per stratum how many requests it sent, and the one with the lowest coin."""

    period: int
    day: int
    issued: int = 0  # tickets of that day
    detector: str = ""
    counts: list[int] = msgspec.field(default_factory=lambda: [0] * len(STRATA))
    coins: list[int] = msgspec.field(default_factory=lambda: [_COINS] * len(STRATA))
    tickets: list[AuditTicket | None] = msgspec.field(default_factory=lambda: [None] * len(STRATA))


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Drawn).decode


def read_canaries(path: Path) -> tuple[Canary, ...]:
    """Read a JSONL file of canaries.

    Raises:
        ValueError: a line is no canary, or asks about a detector that is not audited.
        OSError: the file cannot be read.
    """
    canaries = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if line.strip():
            try:
                canary = msgspec.json.decode(line, type=Canary)
            except msgspec.MsgspecError as error:
                raise ValueError(f"{path}:{number}: {error}") from error
            if canary.detector not in AUDITED:
                raise ValueError(f"{path}:{number}: `{canary.detector}` is none of {', '.join(AUDITED)}")
            canaries.append(canary)
    return tuple(canaries)


class Tickets:
    """One partition's draw. Its state is keyed like a stream detector's, and part of the same checkpoints."""

    name = "tickets"

    def __init__(self, sampling: Sampling, thresholds: Thresholds) -> None:
        self._sampling = sampling
        self._thresholds = thresholds
        self._coin_key = derived(sampling.key, "draw")
        self._ticket_key = derived(sampling.key, "tickets")
        self._limit = round(sampling.share * _COINS)
        self._detectors = tuple(AUDITED)
        self._drawn: dict[str, Drawn] = {}
        self._reported: dict[str, int] = {}  # tenant, router and route -> period of the last report
        self._of_tenant: Counter[str] = Counter()  # how many of them; derived
        self._period = -1  # of the last verdict; after a restart the first one looks for what is due
        self._changed: dict[str, None] = {}

    # --- the draw

    def see(self, verdict: Verdict, category: str, time_ms: int) -> Sequence[Output]:
        """Take a verdict in at its stream time; tickets of the period before come with the first of a new one."""
        period = time_ms // self._sampling.period_ms
        due = self._close(period, time_ms) if period != self._period else ()
        coin = self._coin("principal", verdict.tenant_id, verdict.principal_hash, period)
        if coin < self._limit:
            self._take(verdict, category, period)
        return due

    def _day(self, period: int) -> int:
        """The day in which a period begins."""
        return period * self._sampling.period_ms // _DAY_MS

    def _take(self, verdict: Verdict, category: str, period: int) -> None:
        key = _DRAWN + compound_key(verdict.tenant_id, verdict.principal_hash)
        drawn, day = self._drawn.get(key), self._day(period)
        if drawn is None:
            if len(self._drawn) >= MOST_DRAWN:
                return
            drawn = self._drawn[key] = Drawn(period=-1, day=day)
        if drawn.day != day:
            drawn.day, drawn.issued = day, 0
        if drawn.issued >= self._sampling.per_day:
            return
        if drawn.period != period:
            drawn.period = period
            which = self._coin("detector", verdict.tenant_id, verdict.principal_hash, period)
            drawn.detector = self._detectors[which % len(self._detectors)]
        self._changed[key] = None
        ticket = self._ticket(drawn.detector, verdict, category)
        if ticket is None:
            return
        stratum = STRATA.index(ticket.stratum)
        coin = self._coin("request", verdict.event_id, ticket.ticket_id, period)
        drawn.counts[stratum] += 1
        if coin < drawn.coins[stratum]:
            drawn.coins[stratum], drawn.tickets[stratum] = coin, ticket

    def _ticket(self, detector: str, verdict: Verdict, category: str) -> AuditTicket | None:
        """The question about this request; None where the detector gave no score on its threshold's scale."""
        audited, score = AUDITED[detector], verdict.scores.get(detector)
        reason = next((reason for reason in verdict.reasons if reason.detector == detector), None)
        if score is None or (reason is not None and not audited.covers(reason)):
            return None
        parameter = audited.parameter
        threshold = self._thresholds.of(parameter, verdict.tenant_id)
        score = audited.score(score, reason, threshold)
        return AuditTicket(
            ticket_id=stable_id("ticket", verdict.verdict_id, detector),
            request_id=verdict.request_id,
            tenant_id=verdict.tenant_id,
            principal_hash=verdict.principal_hash,
            detector=detector,
            parameter=parameter,
            router_name=verdict.router_name,
            route=verdict.selected_model,
            category=category,
            difficulty_score=verdict.difficulty_score,
            score=score,
            threshold=threshold,
            threshold_version=verdict.thresholds_version,
            stratum=_stratum(score, threshold),
            issued_at=verdict.time,
            expires_at=verdict.time,
        )

    # --- a period's end

    def _close(self, period: int, time_ms: int) -> list[Output]:
        self._period = period
        outputs: list[Output] = []
        for key in sorted(self._drawn, key=lambda key: (self._coin("order", key, "", self._period), key)):
            drawn = self._drawn[key]
            if drawn.period < period and any(drawn.counts):
                for ticket in self._issue(drawn, time_ms):
                    outputs.append(Output(TICKETS.name, ticket.ticket_id.encode(), encode(ticket)))
                drawn = self._drawn[key] = Drawn(period=drawn.period, day=drawn.day, issued=drawn.issued + 1)
                self._changed[key] = None
            if drawn.period < period and (drawn.day != self._day(period) or not drawn.issued):
                del self._drawn[key]
                self._changed[key] = None
        for key in [key for key, last in self._reported.items() if last < period]:
            self._drop_reported(key)
            self._changed[key] = None
        return outputs

    def _issue(self, drawn: Drawn, time_ms: int) -> Iterator[AuditTicket]:
        candidates = [ticket for ticket in drawn.tickets if ticket is not None]
        present = [STRATA.index(ticket.stratum) for ticket in candidates]
        boost = sum(BOOSTS[i] for i in present)
        shares = [drawn.counts[i] / sum(drawn.counts) for i in present]
        chances = [share / 2 + BOOSTS[i] / boost / 2 for i, share in zip(present, shares, strict=True)]
        first = candidates[0]
        coin = self._coin("stratum", first.tenant_id, first.principal_hash, drawn.period)
        chosen = min(bisect_right(list(accumulate(chances)), coin / _COINS), len(candidates) - 1)
        ticket = candidates[chosen]
        ticket.weight = shares[chosen] / chances[chosen]
        yield self._signed(ticket, time_ms)
        coin = self._coin("canary", ticket.ticket_id, "", drawn.period)
        canaries = self._sampling.canaries
        if canaries and coin < self._sampling.canary_share * _COINS:
            yield self._signed(self._canary(canaries[coin % len(canaries)], ticket), time_ms)

    def _canary(self, canary: Canary, ticket: AuditTicket) -> AuditTicket:
        """A ticket as any other, about a request whose answer is known."""
        parameter = AUDITED[canary.detector].parameter
        threshold = self._thresholds.of(parameter, canary.tenant_id)
        return AuditTicket(
            ticket_id=stable_id("ticket", ticket.ticket_id, canary.request_id),
            request_id=canary.request_id,
            tenant_id=canary.tenant_id,
            principal_hash=canary.principal_hash,
            detector=canary.detector,
            parameter=parameter,
            router_name=canary.router_name,
            route=canary.route,
            category=canary.category,
            difficulty_score=canary.difficulty_score,
            score=canary.score,
            threshold=threshold,
            threshold_version=self._thresholds.version,
            stratum=_stratum(canary.score, threshold),
            weight=ticket.weight,
            issued_at=ticket.issued_at,
            expires_at=ticket.expires_at,
        )

    def _signed(self, ticket: AuditTicket, time_ms: int) -> AuditTicket:
        ticket.issued_at = datetime.fromtimestamp(time_ms / 1000, UTC)
        ticket.expires_at = ticket.issued_at + timedelta(milliseconds=self._sampling.ticket_ms)
        return signed(ticket, self._ticket_key, self._sampling.key_id)

    # --- what untrusted sources say

    def report(self, request: Request, route: Route | None, outcome: Outcome, time_ms: int) -> Sequence[Output]:
        """An outcome of an unflagged request: a report if it says unsafe, one a tenant, route and period."""
        if outcome.evaluation_score_label != "unsafe":
            return ()
        router, model, category = ("", "", "")
        if route is not None:
            router, model, category = route.router_name, route.selected_model, route.category
        key = _reported_key(request.tenant_id, router, model, category)
        period = time_ms // self._sampling.period_ms
        full = len(self._reported) >= MOST_REPORTED or self._of_tenant[_tenant_of(key)] >= MOST_OF_TENANT
        if self._reported.get(key) == period or full:
            return ()
        self._set_reported(key, period)
        self._changed[key] = None
        report = UnsafeReport(
            report_id=stable_id("report", request.tenant_id, request.principal_hash, outcome.event_id),
            request_id=request.request_id,
            tenant_id=request.tenant_id,
            principal_hash=request.principal_hash,
            router_name=router,
            route=model,
            category=category,
            time=datetime.fromtimestamp(time_ms / 1000, UTC),
        )
        return (Output(REPORTS.name, report.tenant_id.encode(), encode(report)),)

    def _set_reported(self, key: str, period: int) -> None:
        self._of_tenant[_tenant_of(key)] += key not in self._reported
        self._reported[key] = period

    def _drop_reported(self, key: str) -> None:
        if self._reported.pop(key, None) is None:
            return
        tenant = _tenant_of(key)
        self._of_tenant[tenant] -= 1
        if not self._of_tenant[tenant]:
            del self._of_tenant[tenant]

    # --- state

    def forget(self, tenant: str, principal: str) -> None:
        """Drop what is held of an erased principal."""
        key = _DRAWN + compound_key(tenant, principal)
        if self._drawn.pop(key, None) is not None:
            self._changed[key] = None

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """See `StreamDetector.changes`."""
        changed, self._changed = self._changed, {}
        for key in changed:
            yield key, self._packed(key)

    def snapshot(self) -> dict[str, bytes]:
        """See `StreamDetector.snapshot`."""
        return {key: self._packed(key) or b"" for key in (*self._drawn, *self._reported)}

    def load(self, key: str, value: bytes | None) -> None:
        """See `StreamDetector.load`."""
        if key.startswith(_DRAWN):
            self._drawn.pop(key, None)
            if value is not None:
                self._drawn[key] = _unpack(value)
        elif value is None:
            self._drop_reported(key)
        else:
            self._set_reported(key, int.from_bytes(value, "little"))

    def _packed(self, key: str) -> bytes | None:
        if key in self._drawn:
            return _pack(self._drawn[key])
        period = self._reported.get(key)
        return None if period is None else period.to_bytes(8, "little")

    def _coin(self, purpose: str, one: str, other: str, period: int) -> int:
        text = f"{purpose}\0{period}\0{one}\0{other}".encode("utf-8", "surrogatepass")
        return int.from_bytes(blake2b(text, digest_size=8, key=self._coin_key).digest(), "big") >> 1


def _reported_key(tenant: str, *names: str) -> str:
    digest = blake2b(compound_key(*names).encode("utf-8", "surrogatepass"), digest_size=_NAMES_BYTES)
    return _REPORTED + compound_key(tenant) + digest.hexdigest()


def _tenant_of(key: str) -> str:
    return key[: -2 * _NAMES_BYTES]


def _stratum(score: float, threshold: float) -> Stratum:
    if score >= threshold:
        return "flagged"
    return "near" if score >= NEAR_SHARE * threshold else "rest"
