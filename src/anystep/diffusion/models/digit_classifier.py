"""Two small classifiers of 8x8 digits, trained apart: one to guide, verify or measure by, the other to check that.

`a` is a network of full layers, `b` of convolutions; each has its own seed. Held-out accuracy stands in their cards.
`python -m anystep.diffusion.models.digit_classifier --out FOLDER` trains the shipped ones again.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep import kept
from anystep.diffusion.classifier import Classifier
from anystep.diffusion.models.digit_data import Images, digits_data
from anystep.errors import UsageError

WEIGHTS = Path(__file__).parent / "data"
FEATURES = 32
LEAST = 16  # rows a call: fewer are filled up, since a matrix product may round a row by how many there are


@dataclass(frozen=True)
class ClassifierRecipe:
    """Everything that decides a classifier. It sees images moved by up to a pixel, with noise of up to `noise`."""

    kind: str = "full"
    seed: int = 0
    updates: int = 3_000
    batch: int = 128
    rate: float = 2e-3
    noise: float = 0.3


RECIPES = {"a": ClassifierRecipe(), "b": ClassifierRecipe("convolutions", seed=1)}


class Net(nn.Module):
    """A body that finds `FEATURES` numbers, and a linear layer that reads them."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(*body), nn.Linear(FEATURES, 10)

    def features(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x)
        return found


def untrained(recipe: ClassifierRecipe) -> Net:
    """The network before training; global draws untouched. Raises UsageError for an unknown kind."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        if recipe.kind == "full":
            return Net(nn.Flatten(), nn.Linear(64, 192), nn.SiLU(), nn.Linear(192, FEATURES), nn.SiLU())
        if recipe.kind == "convolutions":
            layers = [nn.Conv2d(1, 24, 3, padding=1), nn.Conv2d(24, 48, 3, 2, 1), nn.Conv2d(48, 64, 3, 2, 1)]
            convolutions = [part for layer in layers for part in (layer, nn.SiLU())]
            return Net(nn.Unflatten(1, (1, 8)), *convolutions, nn.Flatten(), nn.Linear(256, FEATURES), nn.SiLU())
    raise UsageError(f"ClassifierRecipe(kind={recipe.kind!r}): the kinds are 'full' and 'convolutions'.")


def train(recipe: ClassifierRecipe, data: Images | None = None) -> Net:
    """A classifier of the training digits."""
    data, module = data or digits_data("train"), untrained(recipe)
    optimiser = torch.optim.AdamW(module.parameters(), recipe.rate, weight_decay=0.02)
    draw = torch.Generator().manual_seed(recipe.seed + 1)
    for update in range(recipe.updates):
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * (1 - update / recipe.updates)
        rows = torch.randint(len(data), (recipe.batch,), generator=draw)
        x = moved(data.images[rows], draw)
        x = x + recipe.noise * torch.rand(recipe.batch, 1, 1, generator=draw) * torch.randn(x.shape, generator=draw)
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(module.head(module.features(x)), data.labels[rows], label_smoothing=0.02).backward()
        optimiser.step()
    return module.eval()


def moved(x: Tensor, draw: torch.Generator) -> Tensor:
    """Half of the images moved by a pixel up, down, left or right."""
    way = torch.randint(8, (len(x),), generator=draw)
    x = x.clone()
    for k, (shift, axis) in enumerate(((1, 1), (-1, 1), (1, 2), (-1, 2))):
        x[way == k] = x[way == k].roll(shift, axis)
    return x


def accuracy(classifier: DigitClassifier, data: Images) -> float:
    """The share of right labels."""
    return float((classifier.labels(data.images) == data.labels).double().mean())


class DigitClassifier(Classifier):
    """classifier(x) for clean images (n, 8, 8) in [-1, 1]: log-probabilities (n, 10), differentiable in x.

    It knows no times: guidance asks it through the denoiser, as `ClassifierGuided(..., through="clean")`. A row's
    result does not depend on what else is in the batch. accuracy: on the 500 held-out digits.
    """

    classes = 10

    def __init__(self, module: Net, name: str, accuracy: float) -> None:
        self.module, self.name, self.accuracy = module, name, accuracy
        module.eval().requires_grad_(False)

    def __repr__(self) -> str:
        return f"digits_classifier({self.name!r})"

    def settings(self) -> str:
        return repr(self)

    def __call__(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        return self.forward(x)[1]

    def features(self, x: Tensor) -> Tensor:
        """(n, 32): what the last layer reads, for distances between sets of images."""
        return self.forward(x)[0]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features and log-probabilities."""
        x, n = x.to(torch.float32), len(x)
        if n < LEAST:
            x = torch.cat([x, x.new_zeros(LEAST - n, *x.shape[1:])])
        features = self.module.features(x)
        return features[:n], self.module.head(features).log_softmax(-1)[:n]

    def labels(self, x: Tensor) -> Tensor:
        """(n,): the likeliest digits."""
        return self(x).argmax(-1)

    def says(self, digit: int) -> Verifier:
        """How likely images show a digit, as a function for `on_clean` and the like."""
        return Verifier(self, digit)


@dataclass(frozen=True)
class Verifier:
    """x (n, 8, 8) -> (n,) the probability of `digit`; `log` gives its logarithm."""

    classifier: DigitClassifier
    digit: int

    def __call__(self, x: Tensor) -> Tensor:
        return self.log(x).exp()

    def log(self, x: Tensor) -> Tensor:
        return self.classifier(x)[:, self.digit]


@cache
def digits_classifier(name: str = "a") -> DigitClassifier:
    """The shipped classifier "a" or "b". Raises UsageError for another."""
    if name not in RECIPES:
        raise UsageError(f"digits_classifier({name!r}): there are digits_classifier('a') and digits_classifier('b').")
    tensors, card = kept.load(f"digits-classifier-{name}", WEIGHTS)
    module = untrained(ClassifierRecipe(**card["recipe"]))
    module.load_state_dict(tensors)
    return DigitClassifier(module, name, card["held_out_accuracy"])


def save(recipe: ClassifierRecipe, name: str, folder: Path) -> DigitClassifier:
    """Train one, measure it as its file will be read (bf16), and write it."""
    module, held_out = train(recipe), digits_data("held-out")
    module.load_state_dict({k: v.bfloat16().float() for k, v in module.state_dict().items()})
    found = DigitClassifier(module, name, 0.0)
    found.accuracy = accuracy(found, held_out)
    kept.save(
        module.state_dict(), {"recipe": asdict(recipe), "held_out_accuracy": found.accuracy},
        f"digits-classifier-{name}", folder,
    )  # fmt: skip
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the classifiers of digits and save them.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoints")
    folder = parser.parse_args(arguments).out
    torch.set_num_threads(1)
    for name, recipe in RECIPES.items():
        print(f"{name}: {save(recipe, name, folder).accuracy:.4f} of the held-out digits")


if __name__ == "__main__":
    main()
