"""Is a share beyond what is allowed? A sequential test by bets, looked at after every case.

Bets that the odds are 2, 4, 8, 16 and 32 times the allowed ones are likelihood ratios; each is begun anew where it
has lost, and their mean is an e-detector (Shin, Ramdas and Rinaldo 2023, arXiv:2203.03532). It alarms at `RUN`:
however often one looks, and whatever tests `n` cases are spread over, the chance of any false alarm is at most
`n / RUN` (Doob), as long as each case is a hit with no more than the allowed chance, whatever came before it. What
is allowed may change from case to case, if it is known before the case.
"""

import math
from functools import lru_cache

RUN = 1e6  # cases at the allowed share, of all tests together, for one false alarm
TILTS = (2.0, 4.0, 8.0, 16.0, 32.0)  # times the allowed odds, each bet on
LOG_RUN = math.log(RUN)

Bets = tuple[float, ...]  # log of what each of `TILTS` has won
NO_BETS: Bets = (0.0,) * len(TILTS)

_LOG_TILTS = tuple(map(math.log, TILTS))
_MOST_WON = LOG_RUN + math.log(len(TILTS))  # of one bet: it decides alone, and comes down again


def after(bets: Bets, hit: bool, allowed: float) -> Bets:
    """The bets after another case. `allowed`: the chance of a hit that nobody minds; at 1 nothing can be won."""
    return tuple(
        min(_MOST_WON, max(0.0, won) + log_tilt * hit - stake)
        for won, log_tilt, stake in zip(bets, _LOG_TILTS, _stakes(min(1.0, allowed)), strict=True)
    )


@lru_cache(maxsize=1024)
def _stakes(allowed: float) -> Bets:
    """Log of what each bet loses with a case that is no hit."""
    return tuple(math.log1p(allowed * (tilt - 1)) for tilt in TILTS)


def won(bets: Bets) -> float:
    """Log of what the bets have won in the mean: the evidence, which alarms beyond `LOG_RUN`."""
    return math.log(math.fsum(map(math.exp, bets)) / len(TILTS))
