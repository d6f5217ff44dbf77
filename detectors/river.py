"""What we use of River, imported without what of scikit-learn and SciPy it never needs for that.

River takes scikit-learn where it is installed, for a reader of data sets, and SciPy's distributions for a Gaussian
of many dimensions: together with pandas half of what a worker imported, by time.
"""

import sys
from types import ModuleType
from typing import Any


def _unloaded(*_: Any, **__: Any) -> None:
    raise RuntimeError("scipy.stats was kept from River: see detectors/river.py")


_stats = ModuleType("scipy.stats")
_stats.multivariate_normal = _unloaded  # type: ignore[attr-defined]
_instead: dict[str, Any] = {"sklearn": None, "scipy.stats": _stats}  # None: there is no such module
_instead = {name: module for name, module in _instead.items() if name not in sys.modules}
sys.modules.update(_instead)
try:
    from river.drift import PageHinkley
    from river.linear_model import BayesianLinearRegression
finally:
    for _name in _instead:  # whoever imports them after us gets the real ones
        del sys.modules[_name]

__all__ = ["BayesianLinearRegression", "PageHinkley"]
