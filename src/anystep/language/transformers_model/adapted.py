"""A transformers model under the engine's own attention, cache and prices.

transformers lets a model's attention be replaced by a registered function. Ours hands queries, keys and values to the
engine, so that the cache, what forks share, windows and prices are the engine's own, and the model computes all the
rest. A model for which that is not the whole of its memory, such as a recurrent one, is refused by name: at the start a
few tokens are packed, forked and continued through the engine, and must give the logits of the model's own pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from anystep.errors import ModelError
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Attend, Config, causal, within
from anystep.language.engine.rows import Counters
from anystep.language.transformers_model.attention import NAME, RUN, Pass, register
from anystep.language.transformers_model.tokenizer import Adopted

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE = 12  # tokens that the adapted model is checked on
KNOWN_LAYERS = {"full_attention", "sliding_attention"}


class TransformersEngine(Engine):
    """An engine over a model of transformers."""

    def __init__(self, model: Adapted, tokenizer: Adopted, cache_bytes: int, name: str) -> None:
        super().__init__(model, tokenizer, cache_bytes, name)
        self.matrices = model.matrices

    def flops(self, evaluations: int, attended: int, heads: int) -> float:
        """As `Engine.flops`, each matrix of the model counted once a position: all experts of a mixture are."""
        c = self.config
        scores = 2 * attended * c.layers * c.heads * c.head_dim
        return 2.0 * (evaluations * self.matrices + scores + heads * c.dim * c.vocab)


class Adapted(nn.Module):
    """A transformers model with the face of `Llama`: hidden states under an `attend`, and logits of hidden states."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model, self.title = model, f"{type(model).__name__} ({model.config.model_type})"
        self.part = model.base_model_prefix
        if not isinstance(getattr(model, self.part, None), nn.Module):
            raise ModelError(f"{self.title} has no body apart from its head, which the engine needs.")
        base = getattr(model, self.part)
        embedded = sum(m.weight.numel() for m in base.modules() if isinstance(m, nn.Embedding))
        self.matrices = sum(p.numel() for p in base.parameters() if p.ndim > 1) - embedded
        self.config = self._shape()
        self.attend = within(self.config.windows) if self.config.windows else causal

    @torch.no_grad()
    def _shape(self) -> Config:
        """The engine's shape of the model, as its layers show it when one token goes through."""
        seen = Pass(causal)
        hidden = self._run(torch.tensor([[0]], device=self.model.device), torch.tensor([[0]]), seen)
        meta = self.model.config.get_text_config()
        total = getattr(meta, "num_hidden_layers", len(seen.layers))
        if len(seen.layers) != total:
            raise ModelError(
                f"{self.title} attends through transformers' attention functions in {len(seen.layers)} of its {total} "
                "layers; what the others remember cannot be cut at a token, so this engine does not run it."
            )
        heads, kv_heads = {x.heads for x in seen.layers}, {x.kv_heads for x in seen.layers}
        if len(heads) > 1 or len(kv_heads) > 1:
            raise ModelError(f"{self.title} has layers with different numbers of heads; this engine does not run it.")
        windows = tuple(x.window for x in seen.layers)
        kinds = list(getattr(meta, "layer_types", None) or [])
        odd = sorted({kind for kind in kinds if kind not in KNOWN_LAYERS})
        silent = any(k == "sliding_attention" and w is None for k, w in zip(kinds, windows, strict=False))
        if odd or silent or getattr(meta, "attention_chunk_size", None):
            raise ModelError(f"{self.title} has {', '.join(odd) or 'windows'} that this engine cannot see.")
        return Config(
            vocab=self.model.get_output_embeddings().weight.shape[0],
            dim=hidden.shape[-1],
            layers=total,
            heads=heads.pop(),
            kv_heads=kv_heads.pop(),
            hidden=0,
            head_dim=max(x.width for x in seen.layers),
            context=context_of(meta),
            windows=windows if any(windows) else (),
        )

    def forward(self, tokens: Tensor, positions: Tensor | None = None, attend: Attend | None = None) -> Tensor:
        """Hidden states (batch, time, dim) of tokens (batch, time), as `Llama.forward`."""
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        return self._run(tokens, positions, Pass(attend or self.attend, self.config.head_dim))

    def _run(self, tokens: Tensor, positions: Tensor, run: Pass) -> Tensor:
        config = self.model.config
        own, mark = config._attn_implementation, RUN.set(run)
        register()
        try:
            config._attn_implementation = NAME
            body = getattr(self.model, self.part)
            out = body(input_ids=tokens, position_ids=positions.to(tokens.device), use_cache=False)
        finally:
            config._attn_implementation = own
            RUN.reset(mark)
        return out.last_hidden_state.float()

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits (..., vocab) of hidden states (..., dim), by the model's own head and what follows it."""
        flat = hidden.reshape(1, -1, hidden.shape[-1]).to(self.model.dtype)
        body = self.model._modules[self.part]
        try:
            self.model._modules[self.part] = _Said(flat)
            tokens = torch.zeros(flat.shape[:2], dtype=torch.long, device=flat.device)
            logits = self.model(input_ids=tokens, use_cache=False).logits
        finally:
            self.model._modules[self.part] = body
        return logits.float().reshape(*hidden.shape[:-1], -1)


class _Said(nn.Module):
    """Stands where a model's body was and hands its hidden states to the head; parts of it are itself."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.last_hidden_state = hidden

    def __getattr__(self, name: str) -> Any:
        return self

    def forward(self, *_: Any, **__: Any) -> _Output:
        return _Output(self.last_hidden_state)


class _Output:
    """What a body gives: hidden states, and nothing else that a head may ask for."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getattr__(self, name: str) -> None:
        return None

    def __getitem__(self, index: Any) -> Any:
        return (self.last_hidden_state,)[index]


def context_of(meta: Any) -> int:
    """The longest sequence: where rotary positions change with the length, what they are before they do."""
    longest = int(getattr(meta, "max_position_embeddings", None) or 0)
    longest = longest if longest > 0 else 2048  # a model that names no bound
    ropes = getattr(meta, "rope_parameters", None) or {}
    for rope in [ropes, *ropes.values()]:
        if isinstance(rope, Mapping) and rope.get("rope_type") in ("dynamic", "longrope"):
            longest = min(longest, int(rope.get("original_max_position_embeddings") or longest))
    return longest


def check(engine: Engine, adapted: Adapted) -> None:
    """ModelError unless packed, forked and continued tokens give the logits of the model's own pass."""
    tokens = tuple((37 * i + 11) % engine.config.vocab for i in range(PROBE))
    rows = [tokens, tokens[:4] + tokens[:7:-1], tokens]
    with torch.inference_mode():
        want = [adapted.model(torch.tensor([row], device=adapted.model.device), use_cache=False).logits for row in rows]
    size, apart = max(float(logits.abs().max()) for logits in want), 0.0
    with engine.open(engine.plan([row[: len(row) // 2] for row in rows])) as session:
        for at in range(len(rows[1]) // 2):
            for row, logits in enumerate(session.logits()):
                apart = max(apart, float((logits - want[row][0, len(session.tokens[row]) - 1].float()).abs().max()))
            session.append([row[len(row) // 2 + at] for row in rows])
    bound = 1e-3 if adapted.model.dtype == torch.float32 else 0.05
    if not apart <= bound * size:
        raise ModelError(
            f"{adapted.title} gives other logits in pieces than in one pass (off by {apart:.2g} of {size:.2g}): its "
            "past is more than keys and values, so this engine does not run it."
        )
    engine.cache.trim(0)
    engine.counters = Counters()
