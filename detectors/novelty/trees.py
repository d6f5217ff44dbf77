"""Gradient-boosted trees as plain arrays, evaluated one prompt at a time (no pickle, no library at judgement)."""

from typing import Any, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray


class Trees(NamedTuple):
    """Nodes of all trees in one row; a child that is negative is leaf `-child - 1` of `values`."""

    roots: NDArray[np.int32]  # (trees,)
    feature: NDArray[np.int16]
    threshold: NDArray[np.float32]  # left if the feature is at most this
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    values: NDArray[np.float32]


def from_lightgbm(model: dict[str, Any]) -> Trees:
    """Take over `Booster.dump_model()`; features are numbers and never missing."""
    roots: list[int] = []
    nodes: list[tuple[int, float, int, int]] = []
    values: list[float] = []

    def walk(node: dict[str, Any]) -> int:
        if "leaf_value" in node:
            values.append(node["leaf_value"])
            return -len(values)
        at = len(nodes)
        nodes.append((0, 0.0, 0, 0))
        left, right = walk(node["left_child"]), walk(node["right_child"])
        nodes[at] = (node["split_feature"], node["threshold"], left, right)
        return at

    for tree in model["tree_info"]:
        roots.append(walk(tree["tree_structure"]))
    feature, threshold, left, right = zip(*nodes, strict=True)
    return Trees(
        np.array(roots, np.int32),
        np.array(feature, np.int16),
        np.array(threshold, np.float32),
        np.array(left, np.int32),
        np.array(right, np.int32),
        np.array(values, np.float32),
    )


@nb.njit(cache=True)
def evaluate(features: Any, trees: Any) -> float:
    """The sum of the leaves that `features` (F,) fall into: log odds of being an attack."""
    total = 0.0
    for root in trees.roots:
        node = root
        while node >= 0:
            goes_left = features[trees.feature[node]] <= trees.threshold[node]
            node = trees.left[node] if goes_left else trees.right[node]
        total += trees.values[-node - 1]
    return total
