"""Gradient-boosted trees as plain arrays, evaluated a batch at a time (no pickle, no library at judgement)."""

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


class Forest(NamedTuple):
    """Trees made ready: a step down is one look-up, without a branch to guess."""

    roots: NDArray[np.int32]
    feature: NDArray[np.int16]
    threshold: NDArray[np.float32]
    children: NDArray[np.int32]  # (nodes, 2): at most the threshold, above it
    values: NDArray[np.float32]


def prepare(trees: Trees) -> Forest:
    """Lay out trees for `evaluate`."""
    children = np.stack([trees.left, trees.right], axis=1)
    return Forest(trees.roots, trees.feature, trees.threshold, children, trees.values)


@nb.njit(inline="always")
def _down(node: Any, features: Any, forest: Any) -> Any:
    return forest.children[node, np.int64(features[forest.feature[node]] > forest.threshold[node])]


@nb.njit(cache=True, nogil=True)
def evaluate(features: Any, forest: Any, out: Any) -> None:
    """Fill `out` (n,) with the sums of the leaves that rows of `features` (n, F) fall into: log odds of an attack.

    Four rows go down a tree side by side: each waits for memory at every step, and their waits overlap.
    """
    n = features.shape[0]
    out[:] = 0
    for root in forest.roots:
        for i in range(0, n, 4):
            first, second = features[i], features[min(i + 1, n - 1)]
            third, fourth = features[min(i + 2, n - 1)], features[min(i + 3, n - 1)]
            a = b = c = d = root
            while a >= 0 or b >= 0 or c >= 0 or d >= 0:
                if a >= 0:
                    a = _down(a, first, forest)
                if b >= 0:
                    b = _down(b, second, forest)
                if c >= 0:
                    c = _down(c, third, forest)
                if d >= 0:
                    d = _down(d, fourth, forest)
            out[i] += forest.values[-a - 1]
            if i + 1 < n:
                out[i + 1] += forest.values[-b - 1]
            if i + 2 < n:
                out[i + 2] += forest.values[-c - 1]
            if i + 3 < n:
                out[i + 3] += forest.values[-d - 1]
