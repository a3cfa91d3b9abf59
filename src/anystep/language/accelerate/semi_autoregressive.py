"""Semi-autoregressive drafting: a small network that drafts k coupled tokens a pass, in a tree of the likeliest paths.

Source: Gao et al., "Falcon: Faster and Parallel Inference of Large Language Models through Enhanced
Semi-Autoregressive Drafting and Custom-Designed Decoding Tree" (AAAI 2025, arXiv 2412.12639).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from anystep.language.engine.llama import Attend, Block, Config, Rotary

State = tuple[Tensor, Tensor]  # of the LSTM: (2, rows, dim) each


class FalconNetwork(nn.Module):
    """Features and tokens up to position n to the features of n+1..n+k, where a feature is a last hidden state.

    What position i reads is its feature and the embedding of the token behind it; what it tells is the feature k
    later. Two LSTM layers carry the order, then one block of the target's own kind, in which a position sees all
    of its block of k and all before: the relaxed causal mask that couples the k drafted tokens. `words` (kept,) are
    the tokens that it can draft. Features are standardised by `mean` and `spread` (dim,) on the way in and out.
    """

    mean: Tensor
    spread: Tensor
    words: Tensor

    def __init__(self, target: Config, k: int, words: Tensor) -> None:
        super().__init__()
        self.k = k
        self.lstm = nn.LSTM(2 * target.dim, target.dim, num_layers=2, batch_first=True)
        self.block = Block(replace(target, layers=1, windows=(), qk_norm=False, sandwich=False), 0)
        self.rotary = Rotary(target.head_dim, 10_000.0)
        self.register_buffer("mean", torch.zeros(target.dim))
        self.register_buffer("spread", torch.ones(target.dim))
        self.register_buffer("words", words)

    def read(self, features: Tensor, embedded: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The LSTM over features and embeddings of what follows them, both (batch, time, dim), from `state` on."""
        inputs = torch.cat([(features - self.mean) / self.spread, embedded], -1)
        outputs: tuple[Tensor, State] = self.lstm(inputs, state)
        return outputs

    def foresee(self, read: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """What the LSTM read (batch, time, dim) at `positions` (batch, time) to features k later."""
        cos, sin = self.rotary(positions)
        return self.mean + self.spread * self.block(read, cos, sin, attend)
