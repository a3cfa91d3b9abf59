"""Semi-autoregressive drafting: a small network that drafts k coupled tokens a pass, in a tree of the likeliest paths.

Source: Gao et al., "Falcon: Faster and Parallel Inference of Large Language Models through Enhanced
Semi-Autoregressive Drafting and Custom-Designed Decoding Tree" (AAAI 2025, arXiv 2412.12639).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence, pad_sequence

from anystep.errors import UsageError
from anystep.language.accelerate.drafts import Draft, Drafter, Drafting, Job, Want
from anystep.language.accelerate.verify import Verdict
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Attend, Block, Config, Rotary
from anystep.language.engine.trees import Tree
from anystep.ledger import Cost

LEAD = 16  # positions before the answer that the drafter reads
RANKS = 8  # choices a place that are considered
State = tuple[Tensor, Tensor]  # of the LSTM: (2, rows, dim) each
End = tuple[int, int, int]  # a row, the node of its tree (-1 for its text) to go on from, and the branch that told it
Reading = tuple[Tensor, Sequence[int]]  # features (new, dim), and the tokens behind them


class FalconNetwork(nn.Module):
    """Features and tokens up to position n to the features of n + 1 to n + k; a feature is a last hidden state.

    What position i reads is its feature and the embedding of the token behind it; what it tells is the feature k
    later. Two LSTM layers carry the order; then comes one block of the target's own kind, in which a position sees
    all of its block of k and all before: the relaxed causal mask, which couples the k tokens that are drafted. To what
    they tell, `skip` (k, 2 dim + 1, dim) adds the linear map from what the block's last position read: where the paper
    has 68,000 texts to learn from, a few hundred leave the network to learn what least squares does not know.
    `words` (kept,) are the tokens that it can draft.
    `mean` and `spread` (dim,) standardise features, `scale` embeddings.
    """

    mean: Tensor
    spread: Tensor
    scale: Tensor
    skip: Tensor
    words: Tensor

    def __init__(self, target: Config, k: int, words: Tensor) -> None:
        super().__init__()
        self.target, self.k, dim = target, k, target.dim
        self.lstm = nn.LSTM(2 * dim, dim, num_layers=2, batch_first=True)
        self.block = Block(replace(target, layers=1, windows=(), qk_norm=False, sandwich=False), 0)
        self.rotary = Rotary(target.head_dim, 10_000.0)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("spread", torch.ones(dim))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("skip", torch.zeros(k, 2 * dim + 1, dim))
        self.register_buffer("words", words)

    def inputs(self, features: Tensor, embedded: Tensor) -> Tensor:
        """What is read: features, and embeddings of the tokens behind them, (..., dim) each."""
        return torch.cat([(features - self.mean) / self.spread, embedded / self.scale], -1)

    def foresee(self, made: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """What the LSTM made (batch, time, dim) at `positions` (batch, time) to features k later, standardised and
        without the linear map."""
        cos, sin = self.rotary(positions)
        return self.block(made, cos, sin, attend)

    def linear(self, last: Tensor) -> Tensor:
        """What the last positions of blocks read (..., 2 dim) to the features of their k places (..., k, dim)."""
        return torch.einsum("...i,kio->...ko", last, self.skip[:, :-1]) + self.skip[:, -1]

    def feature(self, told: Tensor) -> Tensor:
        """Standardised features as the target has them."""
        return self.mean + self.spread * told


@dataclass(frozen=True)
class Branch:
    """A text as far as the drafter has read it: `length` positions, the LSTM's state and its last k outputs `tail`, and
    the block's keys and values (kv_heads, length, head_dim)."""

    length: int
    state: State
    tail: Tensor
    keys: Tensor
    values: Tensor


class Foresight:
    """Passes of the network over branches, with the target's own embedding and output head."""

    def __init__(self, network: FalconNetwork, engine: Engine) -> None:
        self.network, self.engine, self.passes = network.eval(), engine, 0
        self.model = embedding(engine)
        self.head = head_rows(engine, network.words)
        c, zeros = engine.config, network.mean.new_zeros
        nothing = zeros(c.kv_heads, 0, c.head_dim)
        self.root = Branch(0, (zeros(2, 1, c.dim), zeros(2, 1, c.dim)), zeros(0, c.dim), nothing, nothing)
        weights = sum(p.numel() for p in network.parameters()) + self.head.numel()
        self.flops = 2.0 * weights  # a position

    @torch.inference_mode()
    def go_on(
        self, branches: Sequence[Branch], features: Sequence[Tensor], after: Sequence[Sequence[int]]
    ) -> tuple[list[Branch], Tensor, Tensor]:
        """One pass: each branch further by `features` (new, dim) and the tokens `after` them; the features then
        foreseen (branches, k, dim), and the log-probabilities of the tokens behind them (branches, k, words)."""
        net, new = self.network, [len(tokens) for tokens in after]
        self.passes += 1
        embedded = self.model.embed(torch.tensor([token for tokens in after for token in tokens]))
        inputs = net.inputs(torch.cat(list(features)), embedded).split(new)
        before = (torch.cat([b.state[0] for b in branches], 1), torch.cat([b.state[1] for b in branches], 1))
        packed, (h, c) = net.lstm(pack_sequence(inputs, enforce_sorted=False), before)
        outputs = pad_packed_sequence(packed, batch_first=True)[0]
        reads = [torch.cat([b.tail, out[:n]]) for b, out, n in zip(branches, outputs, new, strict=True)]
        longest = max(net.k, *new)
        window = torch.stack([F.pad(read[-longest:], (0, 0, max(0, longest - len(read)), 0)) for read in reads])
        lengths = torch.tensor([b.length + n for b, n in zip(branches, new, strict=True)])
        seen = torch.arange(int(lengths.max())) < lengths[:, None]
        grown: list[tuple[Tensor, Tensor]] = []

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            for b, n, key, value in zip(branches, new, k, v, strict=True):
                grown.append((torch.cat([b.keys, key[:, -n:]], 1), torch.cat([b.values, value[:, -n:]], 1)))
            keys, values = (pad_sequence([g[i].transpose(0, 1) for g in grown], True).transpose(1, 2) for i in (0, 1))
            return F.scaled_dot_product_attention(q, keys, values, attn_mask=seen[:, None, None], enable_gqa=True)

        positions = (lengths[:, None] + torch.arange(-longest, 0)).clamp_min(0)
        last = torch.stack([each[-1] for each in inputs])
        ahead = net.feature(net.foresee(window, positions, attend)[:, -net.k :] + net.linear(last))
        further = [
            Branch(int(lengths[i]), (h[:, i : i + 1], c[:, i : i + 1]), read[-net.k :], *grown[i])
            for i, read in enumerate(reads)
        ]
        return further, ahead, F.log_softmax(ahead @ self.head.T, -1)


class Embeds(Protocol):
    """A model whose embeddings can be had."""

    def embed(self, tokens: Tensor) -> Tensor: ...


def embedding(engine: Engine) -> Embeds:
    """The engine's model; UsageError where its embeddings cannot be had."""
    if not hasattr(engine.model, "embed"):
        raise UsageError(f"{engine.name} does not show its embeddings: drafters need a model that load(name) gives.")
    return cast(Embeds, engine.model)


def head_rows(engine: Engine, words: Tensor) -> Tensor:
    """(words, dim): the output head's rows for `words`, in whatever form it is stored."""
    with torch.no_grad():
        return engine.model.logits(torch.eye(engine.config.dim))[:, words].T.contiguous()


@dataclass
class Growing:
    """A row's tree as it is drafted: node i is `tokens[i]` under `parents[i]`, of log-probability `own[i]` there and
    `whole[i]` from the root. `ends` are the nodes that end a block of the last pass, and which of its branches."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)

    def block(self, root: int, choices: Sequence[Sequence[tuple[float, int]]], nodes: int, branch: int) -> None:
        """Adds the `nodes` likeliest nodes of one block behind `root`: `choices[j]` are (log-probability, token) of its
        place j, likeliest first. They do not depend on what was chosen before them: ranks alone make the paths."""
        start = self.whole[root] if root >= 0 else 0.0
        heap = [(-start - choices[0][0][0], 0, 0, root)]  # minus log-probability, place, rank, parent
        while heap and nodes:
            cost, place, rank, parent = heappop(heap)
            logp, token = choices[place][rank]
            node, nodes = len(self.tokens), nodes - 1
            self.tokens.append(token)
            self.parents.append(parent)
            self.own.append(logp)
            self.whole.append(-cost)
            if rank + 1 < len(choices[place]):
                heappush(heap, (cost + logp - choices[place][rank + 1][0], place, rank + 1, parent))
            if place + 1 < len(choices):
                heappush(heap, (cost - choices[place + 1][0][0], place + 1, 0, node))
            else:
                self.ends[node] = branch

    def best_ends(self, width: int) -> list[tuple[int, int]]:
        """The `width` likeliest ends of the last pass, each with its branch; the next pass has its own."""
        best = sorted(self.ends.items(), key=lambda end: -self.whole[end[0]])[:width]
        self.ends = {}
        return best

    def along(self, node: int, count: int) -> list[int]:
        """The last `count` tokens down to `node`."""
        tokens: list[int] = []
        while len(tokens) < count:
            tokens.append(self.tokens[node])
            node = self.parents[node]
        return tokens[::-1]

    def likeliest(self, nodes: int) -> Draft:
        """The `nodes` likeliest nodes; as none is likelier than its parent, they are a tree."""
        order = sorted(sorted(range(len(self.tokens)), key=lambda i: (-self.whole[i], i))[:nodes])
        tree, ranks, kinds = Tree(tuple(self.tokens), tuple(self.parents)), Counter[int](), list[int]()
        for parent, depth in zip(tree.parents, tree.depths.tolist(), strict=True):
            kinds.append(depth * RANKS + min(ranks[parent], RANKS - 1))
            ranks[parent] += 1
        return Draft(tree, chances=tuple(np.exp(self.own).tolist()), kinds=tuple(kinds)).only(order)


class SemiAutoregressiveDrafter(Drafter):
    """Drafts with a trained `network` of `engine`'s model, in a tree that takes `passes` of it.

    The first pass tells k places behind the text; each further one goes on from the `width` likeliest paths so far, as
    one batch. Of all nodes the likeliest are offered, as many as are asked for; `tree=False` offers one chain. The
    paper's trees are fixed lists of ranks; here the drafter's own probabilities make them.

    Preserves nothing by itself: `speculate(process, drafter)` keeps plain decoding's output. Costs a pass of the
    network and of its part of the output head, counted in FLOPs, for every k levels. Drafts depend on the row alone.
    `language.train.falcon.falcon(engine)` trains one. Raises UsageError for settings below one and another engine.
    """

    name = "semi-autoregressive"

    def __init__(
        self, engine: Engine, network: FalconNetwork, passes: int = 2, width: int = 4, tree: bool = True
    ) -> None:
        if passes < 1 or width < 1:
            raise UsageError(
                f"SemiAutoregressiveDrafter(passes={passes!r}, width={width!r}): both at least 1, as 2 and 4."
            )
        self.foresight, self.passes, self.width, self.tree = Foresight(network, engine), passes, width, tree

    def begin(self, job: Job) -> Drafting:
        if job.process.engine is not self.foresight.engine:
            raise UsageError(
                "This drafter belongs to another engine: SemiAutoregressiveDrafter(process.engine, network)."
            )
        return Foreseeing(self, job)

    def __repr__(self) -> str:
        k = self.foresight.network.k
        return f"SemiAutoregressiveDrafter(k={k}, passes={self.passes}, width={self.width}, tree={self.tree})"


class Foreseeing(Drafting):
    """One call's drafting: what has been read of each row, and features that have come since."""

    def __init__(self, drafter: SemiAutoregressiveDrafter, job: Job) -> None:
        self.drafter, self.job, self.foresight = drafter, job, drafter.foresight
        self.read: dict[int, Branch] = {}
        self.fresh: dict[int, list[Tensor]] = {}
        size = self.foresight.flops / self.foresight.engine.flops(1, 0, heads=1)
        self.level = size / self.foresight.network.k  # a pass over k positions reads the weights once

    def draft(self, wants: Mapping[int, Want]) -> dict[int, Draft]:
        k, width = self.foresight.network.k, self.drafter.width if self.drafter.tree else 1
        rows = [row for row in wants if len(self.job.tokens[row]) > self._first(row) + k]  # a block is k positions
        trees = {row: Growing() for row in rows}
        ends, inputs = self._paid([(row, -1, -1) for row in rows], [self._news(row) for row in rows])
        if not ends:
            return {}
        read, ahead, logp = self.foresight.go_on([self.read[row] for row, _, _ in ends], *zip(*inputs, strict=True))
        for (row, _, _), branch in zip(ends, read, strict=True):
            self.read[row], self.fresh[row] = branch, []
        self._add(ends, logp, trees, wants)
        for level in range(k, k * self.drafter.passes, k):
            going = [row for row, tree in trees.items() if wants[row].depth > level]
            ends = [(row, *end) for row in going for end in trees[row].best_ends(width)]
            ends, inputs = self._paid(ends, [(ahead[branch], trees[row].along(node, k)) for row, node, branch in ends])
            if not ends:
                break
            branches = [read[branch] for _, _, branch in ends]
            read, ahead, logp = self.foresight.go_on(branches, *zip(*inputs, strict=True))
            self._add(ends, logp, trees, wants)
        return {row: tree.likeliest(wants[row].nodes) for row, tree in trees.items()}

    def told(self, row: int, draft: Draft, verdict: Verdict, hidden: Tensor) -> None:
        if row in self.read:  # of others, the session's own states are read at their first draft
            self.fresh[row] += hidden[[0, *(node + 1 for node in verdict.nodes)]]

    def _first(self, row: int) -> int:
        return max(0, self.job.starts[row] - LEAD)

    def _news(self, row: int) -> Reading:
        """Features that have come since the last draft, and the tokens behind them."""
        if row not in self.read:
            states = self.job.session.states(self.job.place[row])
            self.read[row], self.fresh[row] = self.foresight.root, list(states[self._first(row) :])
        at = self._first(row) + self.read[row].length + 1
        return torch.stack(self.fresh[row]), self.job.tokens[row][at:]

    def _paid(self, ends: list[End], inputs: list[Reading]) -> tuple[list[End], list[Reading]]:
        """Those whose pass could be paid for."""
        each = [Cost(flops=self.foresight.flops * len(after)) for _, after in inputs]
        granted = self.job.limit.pay([row for row, _, _ in ends], each)
        return [e for e, paid in zip(ends, granted, strict=True) if paid], [
            i for i, paid in zip(inputs, granted, strict=True) if paid
        ]

    def _add(self, ends: Sequence[End], logp: Tensor, trees: Mapping[int, Growing], wants: Mapping[int, Want]) -> None:
        """The pass that went on from `ends` said `logp` (ends, k, words): its likeliest nodes join their trees."""
        best = logp.topk(min(RANKS if self.drafter.tree else 1, logp.shape[-1]))
        words = self.foresight.network.words[best.indices]
        for branch, (row, node, _) in enumerate(ends):
            pairs = zip(best.values[branch].tolist(), words[branch].tolist(), strict=True)
            trees[row].block(node, [list(zip(*pair, strict=True)) for pair in pairs], wants[row].nodes, branch)
