"""Trains the token tagger in torch, and hands its weights over as arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.novelty.features import CHANNELS, CLASS_STEP, CLASSES
from detectors.novelty.model import Base, windows
from detectors.novelty.tagger import DILATIONS, EMBEDDING, TAPS, WIDTH, Weights
from detectors.novelty.tokens import END_TOKENS, ROW_TOKENS, normalise
from detectors.novelty.training.samples import Sample
from detectors.text import END_CHARS

_BATCH = 256
_RATE = 3e-3
_FORGET = 0.5  # of tokens whose embedding is hidden: what cannot be known by heart
_POOLS = (5, 7, 9, 11, 14, 18, 24)


def ends(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Heads and tails, cut as `detectors.text` cuts them."""
    return [text[:END_CHARS] for text in texts], [text[-END_CHARS:] for text in texts]


def _labels(base: Base, samples: Sequence[Sample], rows: NDArray[np.int32], lengths: NDArray[np.int32]) -> Any:
    """(n, ROW_TOKENS) 1 where a token belongs to the attack, by bytes counted from the attack's end of the text."""
    sizes = np.array([len(token) for token in base.tokens], np.int64)[rows]
    real = np.arange(ROW_TOKENS) < lengths[:, None]
    sizes = np.where(real, sizes, 0)
    middle = np.cumsum(sizes, axis=1) - sizes / 2
    from_end = sizes.sum(axis=1, keepdims=True) - middle
    column = np.arange(ROW_TOKENS)[None]
    labels = np.zeros(rows.shape, np.float32)
    for i, sample in enumerate(samples):
        if sample.end == 0:
            continue
        whole = len(sample.text) <= END_CHARS and lengths[i] < ROW_TOKENS
        size = len(normalise(sample.text[sample.begin : sample.end]).encode("utf-8", "ignore"))
        if sample.begin == 0:
            labels[i] = (middle[i] < size) & (whole | (column[0] < END_TOKENS))
        else:
            labels[i] = (from_end[i] < size) & (whole | (column[0] >= lengths[i] - END_TOKENS))
    return labels * real


def _network(size: int, made: NDArray[np.float32]) -> Any:
    import torch
    from torch import nn
    from torch.nn import functional

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(size, EMBEDDING, sparse=True)
            nn.init.normal_(self.embedding.weight, 0, 0.1)
            self.made = torch.tensor(made)
            self.first = nn.Conv1d(EMBEDDING + CLASSES + CHANNELS, WIDTH, 3, padding=1)
            self.later = nn.ModuleList(
                nn.Conv1d(WIDTH, WIDTH, TAPS, padding=TAPS // 2 * d, dilation=d) for d in DILATIONS
            )
            self.last = nn.Conv1d(WIDTH, 1, 1)
            self.whole = nn.Parameter(torch.tensor([0.3, 0.0]))

        def forward(self, rows: Any, seen: Any, real: Any, hide: Any) -> Any:
            known = self.embedding(rows) * hide[..., None]
            x = torch.cat([known, self.made[rows], seen], -1).transpose(1, 2) * real[:, None]
            x = torch.relu(self.first(x)) * real[:, None]
            for layer in self.later:
                x = (x + torch.relu(layer(x))) * real[:, None]
            return self.last(x)[:, 0]

        def prompt(self, odds: Any, real: Any, lengths: Any) -> Any:
            """Log odds of the prompt: the best window at an end."""
            sums = functional.pad((odds.clamp(-8, 8) * real).cumsum(1), (1, 0))
            pooled = []
            for size in _POOLS:
                reach = lengths.clamp(max=size)
                scale = reach**0.7
                whole = sums.gather(1, lengths[:, None])[:, 0]
                pooled.append(sums.gather(1, reach[:, None])[:, 0] / scale)
                pooled.append((whole - sums.gather(1, (lengths - reach)[:, None])[:, 0]) / scale)
            return self.whole[0] * torch.logsumexp(torch.stack(pooled, 1) * 2, 1) / 2 + self.whole[1]

    return Network()


def _weights(network: Any) -> Weights:
    def array(tensor: Any) -> NDArray[np.float32]:
        return np.ascontiguousarray(tensor.detach().numpy(), np.float32)

    embedding = array(network.embedding.weight)
    step = np.maximum(np.abs(embedding).max(axis=0) / 127, 1e-9).astype(np.float32)
    first = array(network.first.weight.permute(2, 1, 0))  # taps, inputs, outputs
    return Weights(
        embedding=np.round(embedding / step).astype(np.int8),
        embedding_step=step,
        # A tap at -1 reads the left neighbour: in the table it is what a token gives to its right one.
        token=np.ascontiguousarray(first[::-1, : EMBEDDING + CLASSES]),
        channel=np.ascontiguousarray(first[:, EMBEDDING + CLASSES :]),
        bias=array(network.first.bias),
        later=np.stack([array(layer.weight.permute(2, 1, 0)) for layer in network.later]),
        later_bias=np.stack([array(layer.bias) for layer in network.later]),
        out=array(network.last.weight[0, :, 0]),
        out_bias=array(network.last.bias),
    )


def fit_tagger(folds: Sequence[tuple[Base, Sequence[Sample]]], epochs: float, seed: int) -> Weights:
    """Train for one to two epochs (more overfits); a minute for 100,000 samples on one core.

    The bases of the folds' samples differ in what they have counted only.
    """
    import torch
    from torch.nn import functional

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    base, samples = folds[0][0], [sample for _, fold in folds for sample in fold]
    looked = [windows(by, *ends([sample.text for sample in fold])) for by, fold in folds]
    rows, seen, lengths = (np.concatenate(arrays) for arrays in zip(*looked, strict=True))
    marked = torch.tensor(_labels(base, samples, rows, lengths))
    attack = torch.tensor([float(sample.end > 0) for sample in samples])
    all_rows, all_seen = torch.tensor(rows), torch.tensor(seen.astype(np.float16))
    all_lengths = torch.tensor(lengths).long()
    network = _network(len(base.tokens), base.classes * np.float32(CLASS_STEP))
    dense = [weight for name, weight in network.named_parameters() if "embedding" not in name]
    optimisers = [
        torch.optim.AdamW(dense, _RATE, weight_decay=1e-4),
        torch.optim.SparseAdam([network.embedding.weight], _RATE),
    ]
    steps = int(len(samples) * epochs / _BATCH)
    order: list[Any] = []
    for step in range(steps):
        if not order:  # batches of about one length each: short prompts need not pay for long ones
            order = list(torch.argsort(all_lengths + torch.rand(len(samples)) * 10).split(_BATCH))
            order = [order[at] for at in torch.randperm(len(order))]
        chosen = order.pop()
        n = all_lengths[chosen].clamp(min=1)
        longest = int(n.max())
        real = (torch.arange(longest)[None] < n[:, None]).float()
        now = all_rows[chosen, :longest].long()
        odds = network(now, all_seen[chosen, :longest].float(), real, (torch.rand(now.shape) > _FORGET).float())
        by_token = functional.binary_cross_entropy_with_logits(odds, marked[chosen, :longest], reduction="none")
        by_prompt = functional.binary_cross_entropy_with_logits(network.prompt(odds, real, n), attack[chosen])
        loss = (by_token * real).sum() / real.sum() + 0.5 * by_prompt
        rate = _RATE * min(1.0, step / 100 + 0.05) * max(0.03, 1 - step / steps)
        for optimiser in optimisers:
            optimiser.param_groups[0]["lr"] = rate
            optimiser.zero_grad()
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
    return _weights(network)
