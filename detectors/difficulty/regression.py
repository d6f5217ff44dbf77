"""River's Bayesian linear regression, with a state that can be stored."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.river import BayesianLinearRegression

Vector = NDArray[np.float64]


class Regression(BayesianLinearRegression):
    """Exact online ridge regression of a fixed number of features; prior precision 4, noise precision 1.

    River keeps the posterior covariance and the natural mean, from which its predictions follow (Bishop 2006, 3.50
    and 3.51); those two are what is stored. Its third array, the precision matrix, serves forgetting and
    mini-batches only, which are not used here, and is not restored. Predictions for a whole vector are River's
    weights times the vector: `predict_one` takes a dictionary, at 20 times the cost.
    """

    def __init__(self, features: int) -> None:
        super().__init__(alpha=4.0, beta=1.0)
        self._names = list(range(features))
        self._ensure_features(self._names)

    def learn(self, x: Vector, y: float) -> None:
        """Learn one case; `x` float64[features], finite."""
        self.learn_one(dict(zip(self._names, x.tolist(), strict=True)), y)

    def predict(self, x: Vector) -> float:
        """The posterior mean at `x`."""
        self._ensure_m()
        return float(x @ self._m_arr) if self._m_arr.size else 0.0

    def pack(self) -> bytes:
        """float64: the covariance in Fortran order, then the natural mean."""
        return bytes(self._ss_inv_arr.tobytes(order="F")) + bytes(self._eta_arr.tobytes())

    def unpack(self, value: bytes) -> None:
        """Take over what `pack` wrote."""
        n = len(self._names)
        stored: NDArray[Any] = np.frombuffer(value, np.float64)
        self._ss_inv_arr = np.array(stored[: n * n].reshape((n, n), order="F"), order="F")
        self._eta_arr = stored[n * n :].copy()
        self._m_dirty = True
