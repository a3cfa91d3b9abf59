"""MMM: motions of a wanted kind in a few passes over masked tokens, and edits by choosing what is masked.

Source: Pinyoanuntapong et al., "MMM: Generative Masked Motion Model" (CVPR 2024), arXiv 2312.03596.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep import kept
from anystep.diffusion.masked.motions import FRAMES, JOINTS, LABELS, Floats, motions
from anystep.diffusion.masked.orders import Confidence, Order
from anystep.diffusion.masked.pace import Cosine, Pace
from anystep.diffusion.masked.predictor import Predictor
from anystep.diffusion.masked.process import MaskedProcess
from anystep.diffusion.masked.sampling import sample
from anystep.diffusion.masked.tokenizer import Tokenizer, TokenizerRecipe, train_tokenizer
from anystep.diffusion.masked.training import MaskedRecipe, trained
from anystep.diffusion.masked.transformer import Shape
from anystep.errors import UsageError

Mask = NDArray[np.bool_]

PATCH = 3  # frames of one token
COLUMNS, PARTS = FRAMES // PATCH, 2
LENGTH = COLUMNS * PARTS
ARMS, LEGS = 0, 1  # rows of tokens


@dataclass(frozen=True)
class MotionRecipe:
    """Everything that decides the models: how many motions of which seed, the tokenizers' training (of each half of the
    body its own), the transformer's."""

    motions: int = 6_000
    seed: int = 100
    tokenizer: TokenizerRecipe = field(
        default_factory=lambda: TokenizerRecipe((1, COLUMNS), PATCH * JOINTS // PARTS, codes=256, updates=1_500)
    )
    masked: MaskedRecipe = field(
        default_factory=lambda: MaskedRecipe(
            Shape(LENGTH, 256, len(LABELS), width=96, layers=3), updates=1_200, batch=64, corrupt=0.5
        )
    )

    def causal(self) -> MaskedRecipe:
        """The same training of an autoregressive transformer of the same size."""
        return replace(self.masked, shape=replace(self.masked.shape, causal=True))


class MaskedMotionModel:
    """Tokens of motions, a model of them, and motions from them.

    tokenizers: of arms and of legs, three frames a token. predictor: of the 32 tokens of 48 frames, arms and legs by
    turns, by label. Preserves nothing exactly: MaskGIT's confidence order is biased for any model (`Confidence`), and
    the model is learned. What an edit keeps, it keeps exactly as tokens; decoded frames depend on two more tokens (and,
    smoothed, one frame) on each side, of the same half of the body alone.
    """

    def __init__(self, tokenizers: Sequence[Tokenizer], predictor: Predictor) -> None:
        self.tokenizers, self.predictor = tuple(tokenizers), predictor

    def process(
        self,
        label: int | str | None = None,
        steps: int = 8,
        order: Order | None = None,
        pace: Pace | None = None,
        temperature: float = 1.0,
        known: Sequence[int | None] | None = None,
    ) -> MaskedProcess:
        """What makes a motion's tokens in `steps` passes.

        label: a number or a name of `LABELS`, None for any. order, pace: by default confidence and cosine. Raises
        UsageError for an unknown label.
        """
        if isinstance(label, str):
            if label not in LABELS:
                raise UsageError(f"label={label!r}: one of {', '.join(LABELS)}.")
            label = LABELS.index(label)
        return MaskedProcess(self.predictor, steps, order or Confidence(), pace or Cosine(), temperature, label, known)

    def tokens(self, angles: Floats) -> Tensor:
        """(n, 48, joints) to (n, 32)."""
        coded = [net.encode(part) for net, part in zip(self.tokenizers, patches(angles), strict=True)]
        return torch.stack(coded, -1).flatten(1)

    @torch.no_grad()
    def angles(self, tokens: Tensor, smooth: bool = True) -> Floats:
        """(n, 2 columns) to (n, 3 columns, joints), for any number of columns.

        smooth: each frame is averaged with its neighbours, (1, 2, 1) / 4, since rounding to codes jitters.
        """
        rows = tokens.reshape(len(tokens), -1, PARTS)
        parts = [net.outer(net.codebook[rows[:, None, :, i]]) for i, net in enumerate(self.tokenizers)]
        x = np.concatenate([p.reshape(len(p), -1, JOINTS // PARTS).numpy() for p in parts], -1).astype(np.float64)
        return smoothed(x) if smooth else x

    def fill(
        self,
        tokens: Tensor,
        hidden: Mask,
        labels: Sequence[int] | None = None,
        steps: int = 8,
        seed: int = 0,
        order: Order | None = None,
    ) -> Tensor:
        """(n, 32) with the sites of `hidden` (columns, parts) drawn anew, and all others as they are.

        labels: what each row is to be, nothing by default. Raises UsageError for a mask of another shape.
        """
        if hidden.shape != (COLUMNS, PARTS):
            raise UsageError(f"fill(hidden={hidden.shape}): ({COLUMNS}, {PARTS}), columns and parts.")
        shown = tokens.masked_fill(torch.from_numpy(hidden.reshape(-1)), self.predictor.mask)
        process = self.process(None, steps, order, known=shown[0].tolist())
        return sample(process, len(tokens), labels, seed=seed, tokens=shown).tokens

    def between(self, tokens: Tensor, first: int, last: int, **how: object) -> Tensor:
        """In-betweening: columns first to last - 1 drawn anew. how: of `fill`."""
        hidden = np.zeros((COLUMNS, PARTS), dtype=bool)
        hidden[first:last] = True
        return self.fill(tokens, hidden, **how)  # type: ignore[arg-type]

    def part(self, tokens: Tensor, part: int, labels: Sequence[int], **how: object) -> Tensor:
        """Arms (`ARMS`) or legs (`LEGS`) drawn anew, as of other labels. how: of `fill`."""
        hidden = np.zeros((COLUMNS, PARTS), dtype=bool)
        hidden[:, part] = True
        return self.fill(tokens, hidden, labels, **how)  # type: ignore[arg-type]

    def long(self, parts: Sequence[Tensor], seam: int = 2, steps: int = 1, seed: int = 0) -> Tensor:
        """Motions one after the other: parts (n, 32) each, with `seam` columns on each side of every seam drawn anew in
        `steps` passes, given half a window on both sides. (n, 32 len(parts)). With seam=0 they are merely joined."""
        found = torch.cat(list(parts), 1)
        for i in range(1, len(parts) if seam else 0):
            at = slice(i * LENGTH - LENGTH // 2, i * LENGTH + LENGTH // 2)
            middle = COLUMNS // 2
            found[:, at] = self.between(found[:, at], middle - seam, middle + seam, steps=steps, seed=seed + i)
        return found


def smoothed(angles: Floats) -> Floats:
    """(n, frames, joints), each frame averaged with its neighbours, (1, 2, 1) / 4."""
    wide = np.pad(angles, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return np.asarray((wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]) / 4)


def patches(angles: Floats) -> tuple[Tensor, Tensor]:
    """(n, frames, joints) to what the tokenizers of arms and of legs take, (n, 1, columns, numbers)."""
    x = torch.from_numpy(np.asarray(angles, dtype=np.float32))
    arms, legs = x[..., : JOINTS // PARTS], x[..., JOINTS // PARTS :]
    return arms.reshape(len(x), 1, -1, PATCH * JOINTS // PARTS), legs.reshape(len(x), 1, -1, PATCH * JOINTS // PARTS)


def motion_tokenizers(
    recipe: MotionRecipe | None = None, say: Callable[[str], None] | None = None
) -> tuple[Tokenizer, Tokenizer]:
    """The tokenizers of arms and of legs of a recipe, trained the first time and kept in the cache folder."""
    recipe = recipe or MotionRecipe()
    return _tokenizer(recipe, ARMS, say), _tokenizer(recipe, LEGS, say)


def _tokenizer(recipe: MotionRecipe, part: int, say: Callable[[str], None] | None) -> Tokenizer:
    def make(name: str, folder: Path) -> None:
        found = train_tokenizer(recipe.tokenizer, patches(motions(recipe.motions, recipe.seed).angles)[part], say=say)
        kept.save(found.state_dict(), {"name": name, "recipe": asdict(recipe.tokenizer)}, name, folder)

    path = kept.kept("motion-tokenizer", [asdict(recipe.tokenizer), recipe.motions, recipe.seed, part], make)
    tensors, _ = kept.load(path.stem, path.parent)
    tokenizer = Tokenizer(recipe.tokenizer)
    tokenizer.load_state_dict(tensors)
    return tokenizer.eval().requires_grad_(False)


def masked_motion_model(
    recipe: MotionRecipe | None = None, causal: bool = False, say: Callable[[str], None] | None = None
) -> MaskedMotionModel:
    """The model of a recipe, or its autoregressive rival over the same tokens, trained the first time (minutes) and
    kept in the cache folder."""
    recipe = recipe or MotionRecipe()
    tokenizers = motion_tokenizers(recipe, say)

    def data() -> tuple[Tensor, Tensor]:
        some = motions(recipe.motions, recipe.seed)
        return MaskedMotionModel(tokenizers, None).tokens(some.angles), torch.from_numpy(some.labels)  # type: ignore[arg-type]

    learned = recipe.causal() if causal else recipe.masked
    told = [asdict(recipe.tokenizer), recipe.motions, recipe.seed]
    return MaskedMotionModel(
        tokenizers, trained("motion-causal" if causal else "motion-masked", learned, data, told, say)
    )
