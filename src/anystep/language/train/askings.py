"""Requests that a chat model makes up itself, and its answers: self-generated text as diverse as the model is.

After the opening of its own chat template a model that learned from conversations writes a request, and then answers
it. Source: Xu et al., "Magpie: Alignment Data Synthesis from Scratch by Prompting Aligned LLMs with Nothing" (2024).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import blake2b

import numpy as np

from anystep import keys as lineage
from anystep.errors import UsageError
from anystep.kept import cache_folder
from anystep.language.engine.engine import Engine
from anystep.language.engine.tokenizer import begun
from anystep.language.train.selftext import Written, encoded, file_text, read_text, write

MARK = "\x01"  # stands for the request where the template is taken apart


@dataclass(frozen=True)
class Asked:
    """`rows` requests of up to `request` tokens, made up at temperature 1; a share `warm` of them is answered at
    `temperature`, the others greedily, in up to `longest` tokens. Another `part` is other text by the same rules."""

    model: str = "smollm2-135m"
    part: int = 0
    rows: int = 96
    request: int = 40
    longest: int = 128
    warm: float = 0.5
    temperature: float = 0.8


def made_up(engine: Engine, recipe: Asked) -> list[str]:
    """The requests; one that ran into its cap ends there. UsageError for a model without a chat template."""
    if engine.tokenizer.template is None:
        raise UsageError(f"{engine.name} has no chat template to make up requests in: use train.selftext.")
    opening = engine.tokenizer.chat([{"role": "user", "content": MARK}]).split(MARK)[0]
    starts = [begun(engine.tokenizer, opening)] * recipe.rows
    written = write(engine, starts, recipe.request, [1.0] * recipe.rows, lineage.named(f"asked {recipe.part}"))
    ends = engine.tokenizer.ends
    return [engine.tokenizer.decode([t for t in one.tokens[one.start :] if t not in ends]) for one in written]


def answered(recipe: Asked, say: Callable[[str], None] = print) -> list[Written]:
    """The requests with their answers, written once by the engine and then read from the cache folder."""
    told = blake2b(json.dumps(asdict(recipe)).encode(), digest_size=6).hexdigest()
    path = cache_folder() / "text" / f"{recipe.model}-asked-{told}.safetensors"
    if not path.exists():
        from anystep.language.loading import load  # imported late: loading knows the recipes in this folder

        engine = load(recipe.model, weights="fp32")
        starts = [encoded(engine.tokenizer, text, True) for text in made_up(engine, recipe)]
        u = lineage.uniforms(lineage.roots(recipe.part, (2,), np.arange(len(starts))))
        heat = np.where(u < recipe.warm, recipe.temperature, 0.0)
        text = list(write(engine, starts, recipe.longest, heat.tolist(), lineage.named(f"answered {recipe.part}")))
        file_text(text, path)
        count = sum(len(one.tokens) - one.start for one in text)
        say(f"{engine.name} answered {len(text)} requests of its own, {count:,} tokens")
    return read_text(path)
