"""A trained small model on disk: bf16 safetensors, and beside it a JSON file that says what it is.

The JSON holds the shape, the alphabet, the recipe, what training cost, and the sha256 of the tensors' file. Loading
checks the hash, so a truncated or exchanged file is named as such and never half read.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor, nn

from anystep.errors import ModelError
from anystep.language.engine.llama import Config
from anystep.tasks.chains import Alphabet

WEIGHTS = Path(__file__).parent.parent / "weights"


@dataclass(frozen=True)
class Card:
    """What stands beside the tensors: `kind` (policy or step-reward), shape, alphabet, recipe and measured cost."""

    name: str
    kind: str
    config: Config
    alphabet: Alphabet
    recipe: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""


def save(module: nn.Module, card: Card, folder: Path) -> Card:
    """Write `folder/name.safetensors` in bf16 and `folder/name.json`; returns the card with its hash."""
    tensors = {k: v.detach().to(torch.bfloat16).contiguous() for k, v in module.state_dict().items()}
    content = write_tensors(tensors)
    card = Card(card.name, card.kind, card.config, card.alphabet, card.recipe, card.cost, sha256(content).hexdigest())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{card.name}.safetensors").write_bytes(content)
    record = asdict(card) | {"alphabet": card.alphabet.symbols}
    (folder / f"{card.name}.json").write_text(json.dumps(record, indent=2) + "\n")
    return card


def load(name: str, folder: Path = WEIGHTS) -> tuple[dict[str, Tensor], Card]:
    """Tensors in float32 and the card; ModelError if the checkpoint is missing, damaged or not what its card says."""
    where = folder / f"{name}.safetensors"
    try:
        content, record = where.read_bytes(), json.loads((folder / f"{name}.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        near = ", ".join(sorted(p.stem for p in folder.glob("*.safetensors"))) or "none"
        raise ModelError(f"load({name!r}): no readable checkpoint in {folder} (there: {near}): {error}") from error
    found = sha256(content).hexdigest()
    if found != record.get("sha256"):
        raise ModelError(
            f"load({name!r}): {where.name} has sha256 {found[:12]}, its card says {record.get('sha256', '')[:12]}; "
            "the file is damaged or another's: put the right one there, or install anystep again."
        )
    try:
        card = Card(**record | {"config": Config(**record["config"]), "alphabet": Alphabet(record["alphabet"])})
    except (TypeError, KeyError, ValueError) as error:
        raise ModelError(f"load({name!r}): {name}.json is not a checkpoint's card: {error}") from error
    return {k: v.float() for k, v in read_tensors(content).items()}, card
