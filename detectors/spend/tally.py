"""The current ten minutes of a partition's price residuals by tenant: what the fleet lane adds up with others'."""

import msgspec

from detectors.spend.past import BUCKET_S
from schemas.verdicts import PriceLevels

REST = ""  # tenants beyond the bound count for all only


class Tally:
    """Sums of weight, of its square and of residual by weight, for up to `tenants` tenants and the rest."""

    def __init__(self, tenants: int) -> None:
        self.bucket = 0.0  # begin, seconds since 1970
        self.changed = True  # since the last checkpoint
        self._tenants = tenants
        self._sums: dict[str, tuple[float, float, float]] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, tenant: str, residual: float, weight: float, time: float) -> None:
        """Add one principal's residual (own standard deviations)."""
        if not self._sums:
            self.bucket = time - time % BUCKET_S
        name = tenant if tenant in self._sums or len(self._sums) < self._tenants else REST
        self._sums[name] = added(self._sums.get(name), (weight, weight * weight, weight * residual))
        self.changed = True

    def due(self, time: float) -> PriceLevels | None:
        """What is to be told, once the ten minutes have passed."""
        if not self._sums or time - self.bucket < BUCKET_S:
            return None
        sums = {name: (round(w, 4), round(s, 4), round(t, 4)) for name, (w, s, t) in self._sums.items()}
        return PriceLevels(bucket=round(self.bucket), sums=sums)

    def restart(self) -> None:
        """It has been told."""
        self._sums = {}
        self.changed = True

    def pack(self) -> bytes:
        """See `load`."""
        return msgspec.msgpack.encode((self.bucket, self._sums))

    def load(self, value: bytes | None) -> None:
        """Take over what `pack` wrote; None: nothing."""
        self.bucket, self._sums = _decode(value) if value else (0.0, {})
        self.changed = False


def added(sums: tuple[float, float, float] | None, more: tuple[float, float, float]) -> tuple[float, float, float]:
    """Two such sums together."""
    return more if sums is None else (sums[0] + more[0], sums[1] + more[1], sums[2] + more[2])


_decode = msgspec.msgpack.Decoder(tuple[float, dict[str, tuple[float, float, float]]]).decode
