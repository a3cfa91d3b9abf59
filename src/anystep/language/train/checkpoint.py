"""A trained small model on disk: bf16 safetensors, and beside it a JSON file that says what it is.

The JSON holds the shape, the alphabet, the recipe, what training cost, and the sha256 of the tensors' file. Loading
checks the hash, so a truncated or exchanged file is named as such and never half read.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from anystep import kept
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
    record = asdict(card) | {"alphabet": card.alphabet.symbols}
    found = kept.save(module.state_dict(), record, card.name, folder)
    return replace(card, sha256=found)


def load(name: str, folder: Path = WEIGHTS) -> tuple[dict[str, Tensor], Card]:
    """Tensors in float32 and the card; ModelError if the checkpoint is missing, damaged or not what its card says."""
    tensors, record = kept.load(name, folder)
    try:
        card = Card(**record | {"config": Config(**record["config"]), "alphabet": Alphabet(record["alphabet"])})
    except (TypeError, KeyError, ValueError) as error:
        raise ModelError(f"load({name!r}): {name}.json is not a checkpoint's card: {error}") from error
    return tensors, card
