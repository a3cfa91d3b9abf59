"""What every loader hands over: a shape, named tensors and a tokenizer; and how a model is built from them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from anystep.errors import ModelError
from anystep.language.engine.architectures import folder_config
from anystep.language.engine.fused import Fused
from anystep.language.engine.llama import Config, Llama
from anystep.language.engine.native.layers import compiled
from anystep.language.engine.outliers import sample
from anystep.language.engine.quantise import quantise
from anystep.language.engine.shelf import shelve, shelved
from anystep.language.engine.tokenizer import Subwords, Tokenizer


@dataclass(frozen=True)
class Weights:
    """A model at rest: `tensors` are named as in `Llama`'s own state dict. `generation` says how its text is best
    generated, as options of `LanguageProcess`. `shelf` is a file in which their int8 form may be kept."""

    config: Config
    tensors: Mapping[str, Tensor]
    tokenizer: Tokenizer
    generation: Mapping[str, Any] = field(default_factory=dict)
    shelf: Path | None = None


def build(weights: Weights, form: str = "fp32", device: str = "cpu") -> Llama | Fused:
    """The model in evaluation mode, its linear layers stored as `form` (see `quantise`), the rest in fp32.

    Raises ModelError when a tensor is missing, left over or of another shape than the config says.
    """
    shelf = weights.shelf if form == "int8" and device == "cpu" else None
    if shelf is not None and (found := shelved(shelf, weights.config)) is not None:
        return compiled(found)
    with torch.device("meta"):
        model = Llama(weights.config)
    wanted = model.state_dict()
    tensors = {name: tensor.to(device, torch.float32) for name, tensor in weights.tensors.items()}
    wrong = sorted(
        {name for name in wanted if name not in tensors or tensors[name].shape != wanted[name].shape}
        | (tensors.keys() - wanted.keys())
    )
    if wrong:
        raise ModelError(f"These tensors do not fit {weights.config}: {', '.join(wrong[:4])}; is this that model?")
    model.load_state_dict(tensors, assign=True)
    model.lay_rotary(device)  # not in the file, so still without storage
    made = quantise(model.requires_grad_(False).eval(), form, sample(weights.tokenizer, weights.config.vocab))
    if shelf is not None and isinstance(made, Fused):
        with contextlib.suppress(OSError):  # a folder that cannot be written to: found anew the next time
            shelve(model, made, shelf)
    return compiled(made) if isinstance(made, Fused) else made


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of one safetensors file; ModelError in one line when it is missing, cut short or corrupt."""
    try:
        return dict(load_file(path))
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path} is not a whole safetensors file ({error}); download or export it again.") from error


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}); a model directory needs it.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} should hold a JSON object, not a {type(content).__name__}.")
    return content


def read_folder(folder: Path) -> Weights:
    """A Hugging Face directory: config.json, tokenizer.json and one or more safetensors files.

    Raises ModelError for a family that this engine does not run and for what it does not do (see `architectures`).
    """
    config = folder_config(read_json(folder / "config.json"), str(folder))
    tensors: dict[str, Tensor] = {}
    files = sorted(file for file in folder.glob("*.safetensors") if file.name != "int8.safetensors")  # a shelf
    if not files:
        raise ModelError(f"{folder} holds no *.safetensors; pickled weights are not read, convert them first.")
    for file in files:
        tensors |= {name.removeprefix("model."): tensor for name, tensor in read_tensors(file).items()}
    if config.tied:
        tensors.pop("lm_head.weight", None)
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("rotary_emb.inv_freq")}
    if config.sandwich:  # Gemma's files hold how far its norms are from one
        tensors = {name: t.float() + 1 if "norm" in name else t for name, t in tensors.items()}
    return Weights(config, tensors, Subwords.from_folder(folder, ends=end_ids(folder)))


def end_ids(folder: Path) -> frozenset[int]:
    """The tokens that end an answer: generation_config.json has the last word where there is one."""
    meta = read_json(folder / "config.json")
    generation = folder / "generation_config.json"
    found = (read_json(generation) if generation.exists() else {}).get("eos_token_id", meta.get("eos_token_id"))
    return frozenset([found] if isinstance(found, int) else found or ())
