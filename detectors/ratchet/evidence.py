"""The evidence of one scope: a bet against each threshold of the grid being unsafe, and an e-detector at each.

With v = weight / weight_max, s and c the judge's sensitivity and specificity, J = s + c - 1, and for a threshold t
    I = 1{score < t},  L = 1{judged unsafe and score < t},  D = L - (1 - c) I,
the miss risk R(t) = E[v 1{unsafe, score < t}] / E[v] has E[v D] = J R(t) E[v] (Rogan and Gladen 1978).

*Loosening.* Y = v (alpha J - D) - epsilon. While R(t) >= alpha, E[Y | past] <= 0, also when an adversary who
sees everything corrupts each label with chance up to epsilon (v <= 1, so that it gains at most epsilon), and also
when s is larger and c smaller than said. So the bets prod (1 + b Y), b in [0, 1), and their mean over several b
are nonnegative supermartingales, and P(ever >= 1 / delta) <= delta (Ville 1939; Waudby-Smith and Ramdas,
arXiv:2010.09686; Saha and Ramdas, arXiv:2408.14015, for the contamination). No independence, any stopping. Labels
may be late or lost, as long as neither that nor their order depends on what is asked: where one tenant's answers
always come first, the next label's risk given the past is not R(t). Tickets are issued in a secret order for this.

*Tightening.* M <- (1 + M) (1 + b v (D - alpha J)), the Shiryaev-Roberts e-detector, mean over several b: while
R(t) <= alpha and the judge is exactly as said, labels until M >= arl are at least arl in the mean (Shin, Ramdas
and Rinaldo, arXiv:2203.03532). Its null has no epsilon in it: corruption may cost a false alarm, never a late one
by more than epsilon.
"""

import math
import struct
from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from zlib import crc32

import numpy as np
import numpy.typing as npt

from detectors.ratchet.terms import RatchetConfig

Floats = npt.NDArray[np.float64]
Table = Callable[[float, bool], list[Floats]]

BETS = np.array([0.08, 0.2, 0.45, 0.8])  # best where the risk is about (1 - bet) alpha
RISES = np.array([0.5, 2.0, 8.0])  # best where the risk is about (1 + rise) alpha
MOST = 1e12  # of an e-detector: said enough
PRINCIPAL_BITS = 2_048
TENANT_BITS = 256
_COUNTS = struct.Struct("<Q2d")


class Seen:
    """A lower bound of how many distinct names were seen: names that share a bit count once."""

    def __init__(self, bits: int, mask: int = 0) -> None:
        self.bits = bits
        self.mask = mask

    def add(self, name: str) -> None:
        """Count a name in."""
        self.mask |= 1 << crc32(name.encode("utf-8", "surrogatepass")) % self.bits

    def __len__(self) -> int:
        return self.mask.bit_count()

    def pack(self) -> bytes:
        """`bits` / 8 bytes."""
        return self.mask.to_bytes(self.bits // 8, "little")

    @classmethod
    def unpack(cls, value: bytes) -> "Seen":
        """What `pack` wrote."""
        return cls(8 * len(value), int.from_bytes(value, "little"))


class Evidence:
    """Of G thresholds: a row each of e-detectors, and a row of log bets, missed and falsely flagged weight."""

    def __init__(self, config: RatchetConfig) -> None:
        self._grid = list(config.grid)
        self._weight_max = config.weight_max
        size = len(self._grid)
        self.detectors: Floats = np.zeros((size, len(RISES)))
        # Log bets; sum of v L; sum of v over safe labels that the threshold would flag.
        self.sums: Floats = np.zeros((size, len(BETS) + 2))
        self.labels = 0
        self.mass = 0.0  # sum of v
        self.safe_mass = 0.0
        self.principals = Seen(PRINCIPAL_BITS)
        self.tenants = Seen(TENANT_BITS)
        self._rises, self._gains = tables(config)

    def bet_by(self, config: RatchetConfig) -> None:
        """Of labels from now on, by this judge's sensitivity; what was bet stands."""
        self._rises, self._gains = tables(config)

    def restart(self) -> None:
        """Begin a new epoch of bets and counts; the e-detectors go on."""
        self.sums[:] = 0.0
        self.labels, self.mass, self.safe_mass = 0, 0.0, 0.0
        self.principals.mask = self.tenants.mask = 0

    def calm(self, index: int) -> None:
        """Begin anew the e-detectors from this threshold up."""
        self.detectors[index:] = 0.0

    def take(self, score: float, unsafe: bool | None, weight: float, principal: str, tenant: str) -> None:
        """Add one label.

        A score that is no number is taken for the lowest. A weight beyond `weight_max` breaks what tickets
        promise: it is cut, and the label counts as a miss against every loosening, whatever it says.
        """
        v = weight / self._weight_max
        broken = not 0 < v <= 1
        v = 1.0 if broken else v
        # Thresholds from here on are above the score.
        first = bisect_right(self._grid, score) if score > -math.inf else 0
        if unsafe is not None:
            detectors = self.detectors
            detectors += 1.0
            detectors *= self._rises(v, unsafe)[first]
            if unsafe:
                np.minimum(detectors, MOST, out=detectors)
        miss = broken or unsafe is not False
        self.sums += self._gains(v, miss)[0 if broken else first]
        if not miss:
            self.safe_mass += v
        self.labels += 1
        self.mass += v
        self.principals.add(f"{tenant}\0{principal}")
        self.tenants.add(tenant)

    def log_bet(self, index: int) -> float:
        """Log of the e-value against "the miss risk at this threshold is at least alpha"."""
        logs: list[float] = self.sums[index].tolist()[: len(BETS)]
        most = max(logs)
        return most + math.log(sum(math.exp(log - most) for log in logs) / len(logs))

    def alarm(self, index: int) -> float:
        """The e-detector at a threshold, up to `MOST`."""
        return float(sum(self.detectors[index].tolist())) / len(RISES)

    def benign_flagged(self, index: int) -> float:
        """Share of safe labels that a threshold would flag; 0 without any."""
        return float(self.sums[index, -1]) / self.safe_mass if self.safe_mass else 0.0

    def risk_ucb(self, index: int, delta: float, epsilon: float, sensitivity: float) -> float:
        """Upper bound of the miss risk at a threshold: with chance 1 - delta, valid at all times of the epoch.

        The judge's false alarms are not taken off: the bound is the larger for them.
        """
        if self.mass == 0:
            return 1.0
        judged = share_ucb(float(self.sums[index, -2]), self.mass, delta)
        return min(1.0, (judged + epsilon * self.labels / self.mass) / sensitivity)

    def pack(self) -> bytes:
        """Everything, in at most 32 * 9 * 8 + 320 bytes."""
        counts = _COUNTS.pack(self.labels, self.mass, self.safe_mass)
        arrays = (self.detectors, self.sums)
        return (
            counts
            + self.principals.pack()
            + self.tenants.pack()
            + b"".join(a.astype("<f8").tobytes() for a in arrays)
        )

    def load(self, value: bytes) -> None:
        """Take over what `pack` wrote.

        Raises:
            ValueError: it is of another size of grid.
        """
        size = len(self._grid)
        head = _COUNTS.size + (PRINCIPAL_BITS + TENANT_BITS) // 8
        numbers = np.frombuffer(value, "<f8", offset=head)
        if len(numbers) != size * (len(RISES) + len(BETS) + 2):
            raise ValueError(f"a state of another grid than of {size} thresholds")
        self.labels, self.mass, self.safe_mass = _COUNTS.unpack_from(value)
        self.principals = Seen.unpack(value[_COUNTS.size : _COUNTS.size + PRINCIPAL_BITS // 8])
        self.tenants = Seen.unpack(value[_COUNTS.size + PRINCIPAL_BITS // 8 : head])
        at = 0
        for array in (self.detectors, self.sums):
            array[...] = numbers[at : at + array.size].reshape(array.shape)
            at += array.size


def share_ucb(hits: float, mass: float, delta: float) -> float:
    """Upper bound of a weighted mean of losses in [0, 1]: with chance 1 - delta, valid at all times.

    `hits` is the sum of v L, `mass` that of v, with weights v in (0, 1]. Beta mixture of sub-Bernoulli martingales
    (Howard et al. 2021): exp(h hits) / (1 - r + r e^h)^mass is a supermartingale for each h, weights
    included, because x^v <= 1 + v (x - 1).
    """
    rest = mass - hits
    if rest <= 1e-9 * mass:  # nothing is known, or all that is known is bad
        return 1.0
    level = math.log(1 / delta) - (_log_beta(0.5 + hits, 0.5 + rest) - _log_beta(0.5, 0.5))
    low, high = hits / mass, math.nextafter(1.0, 0.0)
    for _ in range(50):
        share = (low + high) / 2
        if -hits * math.log(share) - rest * math.log1p(-share) < level:
            low = share
        else:
            high = share
    return high


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


@lru_cache(maxsize=64)
def tables(config: RatchetConfig) -> tuple[Table, Table]:
    """What a label does to e-detectors (factors) and to sums (terms), shared by the scopes of one config.

    Tables by (v, miss): an array [G, columns] for each count of thresholds that flag the label, 0 to G.
    """
    c = config.specificity
    allowed = config.alpha * (config.sensitivity + c - 1)
    rises = np.minimum(RISES, 0.9 / (allowed + 1 - c))
    size = len(config.grid)
    passes = (np.arange(size) >= np.arange(size + 1)[:, None])[..., None]  # [flagging, G, 1]

    @lru_cache(maxsize=16)
    def factors(v: float, miss: bool) -> list[Floats]:
        excess = (c if miss else c - 1) - allowed
        return list(np.where(passes, 1 + rises * v * excess, 1 - rises * v * allowed))

    @lru_cache(maxsize=16)
    def terms(v: float, miss: bool) -> list[Floats]:
        excess = (c if miss else c - 1) - allowed
        passed = np.append(np.log1p(BETS * (-v * excess - config.epsilon)), (v * miss, 0.0))
        flagged = np.append(np.log1p(BETS * (v * allowed - config.epsilon)), (0.0, v * (not miss)))
        return list(np.where(passes, passed, flagged))

    return factors, terms
