"""When a threshold moves.

A threshold in force is `grid[index]`, index = base - soft: the base is moved by trusted labels only, the soft part
by untrusted reports only, and only down. Higher is looser. Time is the labels' stream time; no call reads a clock.
"""

import math
import struct
from bisect import bisect_right
from collections.abc import Iterable

import msgspec

from detectors.ratchet.evidence import PRINCIPAL_BITS, TENANT_BITS, Evidence, Seen
from detectors.ratchet.terms import DAY_S, Move, RatchetConfig, TrustedLabel, UntrustedReport, Why

_HEAD = struct.Struct("<B8s2dIIQ2?5d")  # in the order of `snapshot`
_FORMAT = 2
_NEVER = -math.inf
_VOTER_BITS = 256


class Ratchet:
    """One scope's threshold. Deterministic: a function of the config and of the calls, in order.

    Ask `decision` after every label or report, and `apply` what is put in force (at once where the mode is active,
    after approval where it is not): then it does not matter how the log was cut into batches. `follow` does all
    three.

    Guarantees, whoever writes the labels:
    - `threshold` is never above `grid[ceiling]` nor below `grid[0]`.
    - The highest threshold so far rises by at most `steps_per_day` steps within any 24 hours of stream time.
    - Untrusted reports change nothing but the soft part: 0 to `soft_steps`, by which the threshold is lower.
    - Without a new trusted label nothing loosens, but the expiry of a soft step (back to the base, never past it).
    Guarantees while at most a share epsilon of the trusted labels is corrupted and the judge is as good as said:
    - The chance of ever loosening to a threshold whose miss risk is at least alpha throughout an epoch is at most
      delta, over all epochs: epoch k has 6 delta / (pi k)^2, and its thresholds are passed in a fixed sequence
      (as Learn then Test, Angelopoulos et al., arXiv:2110.01052, with e-values). It is this one threshold's chance:
      of m ratchets together it is m delta.
    - With the miss risk at alpha or less, n labels tighten falsely from any one threshold n / `arl` times at most,
      in the mean. Several thresholds may see the same run of misses: one false alarm can be followed by the next
      lower one's soon after.
    What is not covered: traffic that turns worse within an epoch (the e-detector finds it, later than it came), a
    judge that is itself fooled beyond epsilon, and principals invented beyond what a sample of them can stand.
    """

    def __init__(self, config: RatchetConfig) -> None:
        self.config = config
        self.base = config.start
        self.soft = 0
        self.epoch = 1
        self._evidence = Evidence(config)
        self._alarmed = False
        self._fresh = False  # a trusted label is the newest there is, and no move was made on it
        self._epoch_start = self._time = self._moved = _NEVER
        self._soft_until = self._votes_since = _NEVER
        self._loosened: list[float] = []  # times, of the last `steps_per_day` loosenings
        self._missed_by = Seen(TENANT_BITS)  # tenants with a trusted miss in the present run
        self._voters = (Seen(PRINCIPAL_BITS), Seen(_VOTER_BITS))  # of untrusted reports: principals, tenants

    @property
    def index(self) -> int:
        """Index in force."""
        return max(0, self.base - self.soft)

    @property
    def threshold(self) -> float:
        """Threshold in force, in units of the detector's score."""
        return self.config.grid[self.index]

    @property
    def soft_until(self) -> float | None:
        """When the soft part expires; None without one."""
        return self._soft_until if self.soft else None

    @property
    def stuck(self) -> bool:
        """At the floor, and still in alarm: nothing is left to tighten, a human has to look."""
        return self.base == 0 and self._evidence.alarm(0) >= self.config.arl

    def take(self, label: TrustedLabel) -> None:
        """Take in a trusted judge's label, in log order. Never raises for what is in it."""
        self._advance(label.time)
        self._fresh = True
        if self._epoch_start == _NEVER:
            self._epoch_start = self._time
        elif self._time - self._epoch_start >= self.config.evidence_s:
            self.begin_epoch()
        evidence = self._evidence
        evidence.take(label.score, label.unsafe, label.weight, label.principal_hash, label.tenant_id)
        if label.unsafe and not label.score >= self.config.grid[self.base]:
            self._on_miss(label.tenant_id)

    def take_untrusted(self, report: UntrustedReport) -> None:
        """Take in a report that a request which passed was unsafe, one vote a tenant: it can only tighten."""
        self._advance(report.time)
        self._fresh = False
        soft_s = self.config.soft_s
        resting = not self.soft and self._time < self._soft_until + soft_s
        if resting or not report.score < self.threshold:
            return
        if self._time >= self._votes_since + soft_s:
            self._forget_votes()
            self._votes_since = self._time
        principals, tenants = self._voters
        principals.add(f"{report.tenant_id}\0{report.principal_hash}")
        tenants.add(report.tenant_id)

    def decision(self, now: float) -> Move | None:
        """The move that is due at stream time `now`, or None: hold. Changes nothing; pass it to `apply`.

        A loosening is due only at a trusted label: while it is the newest entry, `now` is its time, and no move has
        been made on it.
        """
        now = max(now, self._time)
        if self._alarmed:
            return self._move(now, "alarm", self._tightened())
        if self._fresh and now <= self._time and self._may_loosen(now):
            return self._move(now, "evidence", max(0, self.base + 1 - self.soft))
        if self.soft and now >= self._soft_until:
            return self._move(now, "expiry", self.base)
        if self._soft_is_due(now):
            return self._move(now, "untrusted", self.index - 1)
        return None

    def set_sensitivity(self, value: float) -> None:
        """The judge's sensitivity as it is known now: what is bet from here on is bet by it.

        Bets that trusted the judge more are void: a new epoch.
        """
        before = self.config.sensitivity
        if value == before:
            return
        self.config = msgspec.structs.replace(self.config, sensitivity=value)
        self._evidence.bet_by(self.config)
        if value < before:
            self.begin_epoch()

    def apply(self, move: Move) -> None:
        """Put a move of `decision` in force. Labels may have come in between; another move may not.

        Raises:
            ValueError: it does not start from the threshold in force, or its evidence was dropped since.
        """
        if move.old_index != self.index:
            raise ValueError(f"a move from index {move.old_index}, with {self.index} in force")
        if move.why == "evidence" and move.epoch != self.epoch:
            raise ValueError(f"a move on evidence of epoch {move.epoch}, in epoch {self.epoch}")
        self._advance(move.time)
        self._fresh = False
        if move.why == "expiry":
            self.soft = 0
            self._forget_votes()  # or what was reported meanwhile would renew the step, with no rest
        elif move.why == "untrusted":
            self.soft += 1
            self._soft_until = self._time + self.config.soft_s
            self._forget_votes()
        elif move.why == "alarm":
            self._evidence.calm(move.new_index + 1)
            self.base, self.soft, self._alarmed = move.new_index, 0, False
            self._missed_by.mask = 0
            self._moved = self._time
            self.begin_epoch()
        else:
            self.base = min(self.base + 1, self.config.ceiling)
            self._loosened = [*self._loosened, self._time][-self.config.steps_per_day :]
            self._moved = self._time

    def begin_epoch(self) -> None:
        """Drop the evidence for loosening: what it was bet under no longer holds."""
        self.epoch += 1
        self._epoch_start = self._time
        self._evidence.restart()

    def follow(self, log: Iterable[TrustedLabel | UntrustedReport]) -> list[Move]:
        """Take a log in order and put in force what is due after each entry; the moves."""
        moves = []
        for entry in log:
            if isinstance(entry, TrustedLabel):
                self.take(entry)
            else:
                self.take_untrusted(entry)
            move = self.decision(entry.time)
            if move is not None:
                self.apply(move)
                moves.append(move)
        return moves

    def snapshot(self) -> bytes:
        """The whole state, at most 4 kB: `restore` of it, with the same config, goes on exactly."""
        head = _HEAD.pack(
            _FORMAT, self.config.stakes, self.config.sensitivity, self.threshold,
            self.base, self.soft, self.epoch, self._alarmed, self._fresh,
            self._epoch_start, self._time, self._moved, self._soft_until, self._votes_since,
        )  # fmt: skip
        seen = self._missed_by.pack() + self._voters[0].pack() + self._voters[1].pack()
        times = struct.pack(f"<B{len(self._loosened)}d", len(self._loosened), *self._loosened)
        return head + seen + times + self._evidence.pack()

    @classmethod
    def restore(cls, config: RatchetConfig, state: bytes) -> "Ratchet":
        """A ratchet that goes on from a snapshot, with the sensitivity that was set.

        Where bets are made by other figures now (the grid, alpha, epsilon, specificity, the weights), what was bet
        is no evidence of anything: it begins a new epoch at the highest threshold that is not above what was in
        force. A ceiling that came down below the base takes the base with it.

        Raises:
            ValueError: the state is of another format.
        """
        ratchet = cls(config)
        try:
            form, stakes, sensitivity, value, base, soft, epoch, *rest = _HEAD.unpack_from(state)
            if form != _FORMAT:
                raise ValueError(f"a ratchet's state of format {form}")
            ratchet.set_sensitivity(sensitivity)
            ratchet.epoch = epoch
            ratchet._alarmed, ratchet._fresh, ratchet._epoch_start, ratchet._time = rest[:4]
            ratchet._moved, ratchet._soft_until, ratchet._votes_since = rest[4:]
            at = _HEAD.size
            seen = []
            for bits in (TENANT_BITS, PRINCIPAL_BITS, _VOTER_BITS):
                seen.append(Seen.unpack(state[at : at + bits // 8]))
                at += bits // 8
            count = state[at]
            ratchet._loosened = list(struct.unpack_from(f"<{count}d", state, at + 1))
            if stakes == config.stakes:
                ratchet.base, ratchet.soft = min(base, config.ceiling), soft
                ratchet._missed_by, ratchet._voters = seen[0], (seen[1], seen[2])
                ratchet._evidence.load(state[at + 1 + 8 * count :])
            else:
                ratchet.base = min(max(0, bisect_right(config.grid, value) - 1), config.ceiling)
                ratchet._alarmed = ratchet._fresh = False
                ratchet._votes_since = _NEVER
                ratchet.begin_epoch()
        except (struct.error, IndexError) as error:
            raise ValueError(f"not a ratchet's state: {error}") from error
        return ratchet

    def _advance(self, time: float) -> None:
        """Stream time does not go back."""
        if time > self._time:
            self._time = time

    def _on_miss(self, tenant_id: str) -> None:
        """Votes are of one run of misses, which begins where the e-detector was last low.

        Alarms come with a miss only, and stay until they are applied: it does not matter who asks when.
        """
        alarm, arl = self._evidence.alarm(self.base), self.config.arl
        if alarm < math.sqrt(arl):
            self._missed_by.mask = 0
        self._missed_by.add(tenant_id)
        if self.base and alarm >= arl and len(self._missed_by) >= self.config.votes:
            self._alarmed = True

    def _tightened(self) -> int:
        """The highest threshold that is not in alarm itself, at least `tighten_steps` below the base."""
        index = max(0, self.base - self.config.tighten_steps)
        while index and self._evidence.alarm(index) >= self.config.arl:
            index -= 1
        return index

    def _delta(self) -> float:
        return 6 * self.config.delta / (math.pi * self.epoch) ** 2

    def _may_loosen(self, now: float) -> bool:
        config, evidence, above = self.config, self._evidence, self.base + 1
        return (
            above <= config.ceiling
            and now >= self._moved + config.cool_down_s
            and evidence.labels >= config.least_labels
            and evidence.log_bet(above) >= -math.log(self._delta())
            and not self._steps_used(now)
            and len(evidence.principals) >= config.least_principals
            and len(evidence.tenants) >= config.least_tenants
            and evidence.alarm(above) < config.arl
        )

    def _steps_used(self, now: float) -> bool:
        within = [time for time in self._loosened if now - time < DAY_S]
        return len(within) >= self.config.steps_per_day

    def _soft_is_due(self, now: float) -> bool:
        config, (principals, tenants) = self.config, self._voters
        return (
            self.soft < config.soft_steps
            and now < self._votes_since + config.soft_s
            and self.index > 0
            and len(tenants) >= config.soft_tenants
            and len(principals) >= config.soft_principals
            and self._evidence.benign_flagged(self.index - 1) <= config.benign_budget
        )

    def _forget_votes(self) -> None:
        for voters in self._voters:
            voters.mask = 0
        self._votes_since = _NEVER

    def _move(self, now: float, why: Why, new_index: int) -> Move:
        config, evidence, old_index, delta = self.config, self._evidence, self.index, self._delta()
        e_value = 0.0
        if why == "alarm":
            e_value = evidence.alarm(self.base)
        elif why == "evidence":
            e_value = math.exp(min(evidence.log_bet(self.base + 1), 700.0))
        return Move(
            time=now,
            direction="tighten" if new_index < old_index else "loosen",
            why=why,
            old_index=old_index,
            new_index=new_index,
            old_value=config.grid[old_index],
            new_value=config.grid[new_index],
            n_trusted=evidence.labels,
            n_principals=len(evidence.principals),
            n_tenants=len(evidence.tenants),
            e_value=e_value,
            risk_ucb=evidence.risk_ucb(new_index, delta, config.epsilon, config.sensitivity),
            benign_flagged=evidence.benign_flagged(new_index),
            alpha=config.alpha,
            delta=delta,
            epsilon=config.epsilon,
            epoch=self.epoch,
        )
