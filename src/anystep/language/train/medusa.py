"""Medusa heads for the models known by name: which text they are trained on, and where they are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from anystep.errors import ModelError, UsageError
from anystep.kept import cache_folder
from anystep.language.accelerate.medusa import Heads
from anystep.language.engine.engine import Engine
from anystep.language.engine.fused import Fused
from anystep.language.engine.llama import Llama
from anystep.language.engine.weights import Weights, build
from anystep.language.train.askings import Asked, answered
from anystep.language.train.heads import HeadRecipe, fit
from anystep.language.train.joint import JointRecipe, joint, merged
from anystep.language.train.selftext import TextRecipe, Written, selftext


@dataclass(frozen=True)
class MedusaRecipe:
    """Everything that decides the heads: the text of `text`, with `asked` parts of requests the model made up itself,
    and how they are fitted."""

    model: str = "smollm2-135m"
    text: TextRecipe = field(default_factory=TextRecipe)
    asked: int = 3
    heads: HeadRecipe = field(default_factory=HeadRecipe)


def own_text(recipe: MedusaRecipe, say: Callable[[str], None]) -> list[Written]:
    """What the model wrote, half an hour of one core the first time."""
    asked = [one for part in range(recipe.asked) for one in answered(Asked(recipe.model, part), say)]
    return selftext(recipe.text, say) + asked


def trained(engine: Engine, recipe: MedusaRecipe | None = None, say: Callable[[str], None] = print) -> Heads:
    """Heads for a known model, trained once and then kept in the user's cache folder by the hash of their recipe.

    Raises UsageError for a model that the recipe is not for.
    """
    recipe = recipe or MedusaRecipe()
    if engine.name != recipe.model:
        raise UsageError(
            f"No heads are known for {engine.name}, only for {recipe.model}: train them with "
            "train.heads.fit(engine, text), text from train.selftext.write(engine, starts, longest, temperatures)."
        )
    path = kept(recipe)
    if not path.exists():
        save_heads(fit(engine, own_text(recipe, say), recipe.heads, say), path)
    return load_heads(path)


def jointly(
    recipe: MedusaRecipe | None = None,
    train: JointRecipe | None = None,
    weights: str = "int8",
    say: Callable[[str], None] = print,
) -> tuple[Engine, Heads]:
    """Medusa-2: an engine whose model learned together with its heads, and these; trained once and then kept.

    weights: the engine's form, as of `load`. `JointRecipe(upper=0)` gives the model as it was, with heads trained as
    long.
    """
    from anystep.language.loading import load  # imported late: loading knows the recipes in this folder

    recipe, train = recipe or MedusaRecipe(), train or JointRecipe()
    engine = load(recipe.model, weights="fp32")
    assert isinstance(engine.model, Llama)
    path = kept(recipe, train)
    if not path.exists():
        reader = load(recipe.model, weights="int8").model
        assert isinstance(reader, Llama | Fused)
        heads, added = joint(engine.model, trained(engine, recipe, say), own_text(recipe, say), train, say, reader)
        factors = {f"{name}|{i}": each for name, pair in added.items() for i, each in enumerate(pair)}
        save_heads(heads, path, factors)
    tensors = load_file(path)
    names = [name.removesuffix("|0") for name in tensors if name.endswith("|0")]
    model = merged(engine.model, {name: (tensors[f"{name}|0"].float(), tensors[f"{name}|1"].float()) for name in names})
    stored = build(Weights(engine.config, model.state_dict(), engine.tokenizer), weights)
    heads = load_heads(path)
    return Engine(stored, engine.tokenizer, name=f"{engine.name}-medusa-2", generation=engine.generation), heads


def kept(recipe: MedusaRecipe, train: JointRecipe | None = None) -> Path:
    """Where what these recipes make is kept."""
    told = json.dumps([asdict(recipe), asdict(train) if train else None])
    name = blake2b(told.encode(), digest_size=6).hexdigest()
    return cache_folder() / "models" / f"{recipe.model}-medusa{2 if train else 1}-{name}.safetensors"


def save_heads(heads: Heads, path: Path, beside: Mapping[str, Tensor] | None = None) -> None:
    """Half precision; with other tensors `beside`, named with a bar; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {n: t.half() if t.is_floating_point() else t.int() for n, t in heads.state_dict().items()}
    kept |= {n: t.half() for n, t in (beside or {}).items()}
    save_file({n: t.contiguous() for n, t in kept.items()}, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def load_heads(path: Path) -> Heads:
    """Heads that `save_heads` wrote; ModelError for a file that is damaged or of something else."""
    try:
        tensors = {
            n: t.float() if t.is_floating_point() else t.long() for n, t in load_file(path).items() if "|" not in n
        }
        heads = Heads(len(tensors["inner"]), tensors["words"], tensors["outer"])
        heads.load_state_dict(tensors)
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{path} holds no Medusa heads: {error}; delete it, and the recipe trains them again."
        ) from error
    return heads.requires_grad_(False).eval()
