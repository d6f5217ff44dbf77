"""River is imported without its heavy company, and nobody else goes without."""

import subprocess
import sys

SCRIPT = """
import sys
import detectors.registry
heavy = {"sklearn", "scipy.stats", "pandas", "joblib"} & set(sys.modules)
assert not heavy, heavy
import sklearn.linear_model, scipy.stats, river.drift
assert scipy.stats.multivariate_normal([0, 0]).pdf([0, 0]) > 0
assert river.drift.PageHinkley is detectors.river.PageHinkley
"""


def test_a_worker_imports_neither_scikit_learn_nor_scipys_distributions() -> None:
    """They, and pandas with them, were half of what a worker imports, by time."""
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr
