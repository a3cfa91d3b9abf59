"""SpecMaskGIT: sounds of a wanted kind in a few passes over masked tokens of mel spectrograms.

Source: Comunita et al., "SpecMaskGIT: Masked Generative Modeling of Audio Spectrograms for Efficient Audio Synthesis
and Beyond" (ISMIR 2024).
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
from anystep.diffusion.masked.orders import Confidence, Order
from anystep.diffusion.masked.pace import Cosine, Pace
from anystep.diffusion.masked.predictor import ClassifierFree, NetworkPredictor, Predictor
from anystep.diffusion.masked.process import MaskedProcess
from anystep.diffusion.masked.sampling import sample
from anystep.diffusion.masked.sounds import BANDS, FRAMES, KINDS, clips, sound, spectrograms
from anystep.diffusion.masked.tokenizer import Tokenizer, TokenizerRecipe, train_tokenizer
from anystep.diffusion.masked.training import MaskedRecipe, trained
from anystep.diffusion.masked.transformer import Shape
from anystep.errors import UsageError

Floats = NDArray[np.float64]

PATCH = 8  # bands and frames
ROWS, COLUMNS = BANDS // PATCH, FRAMES // PATCH
LENGTH = ROWS * COLUMNS


@dataclass(frozen=True)
class SoundRecipe:
    """Everything that decides the models: how many clips of which seed, the tokenizer, the transformer's training."""

    clips: int = 4_000
    seed: int = 100
    tokenizer: TokenizerRecipe = field(default_factory=lambda: TokenizerRecipe((ROWS, COLUMNS), PATCH * PATCH))
    masked: MaskedRecipe = field(
        default_factory=lambda: MaskedRecipe(
            Shape(LENGTH, 64, len(KINDS), width=64, layers=3), updates=600, batch=32, rate=4e-3
        )
    )

    def causal(self) -> MaskedRecipe:
        """The same training of an autoregressive transformer of the same size."""
        return replace(self.masked, shape=replace(self.masked.shape, causal=True))


class SpecMaskGIT:
    """Tokens of spectrograms, a model of them, and sounds from them.

    tokenizer: 5 x 26 patches of 8 bands and 8 frames, each one of 64 codes, column by column. predictor: of those 130
    tokens, by kind of sound. Preserves nothing exactly: MaskGIT's confidence order is biased for any model
    (`Confidence`), and the model is learned.
    """

    def __init__(self, tokenizer: Tokenizer, predictor: Predictor) -> None:
        self.tokenizer, self.predictor = tokenizer, predictor

    def process(
        self,
        kind: int | str | None = None,
        steps: int = 16,
        order: Order | None = None,
        pace: Pace | None = None,
        temperature: float = 1.0,
        guidance: float = 1.0,
        known: Sequence[int | None] | None = None,
    ) -> MaskedProcess:
        """What makes a sound's tokens in `steps` passes, twice as many evaluations where guidance is not 1.

        kind: a number or a name of `KINDS`, None for any. order, pace: by default MaskGIT's, confidence and cosine.
        Raises UsageError for an unknown kind.
        """
        if isinstance(kind, str):
            if kind not in KINDS:
                raise UsageError(f"kind={kind!r}: one of {', '.join(KINDS)}.")
            kind = KINDS.index(kind)
        model = self.predictor if guidance == 1.0 else ClassifierFree(self.predictor, guidance)
        return MaskedProcess(model, steps, order or Confidence(), pace or Cosine(), temperature, kind, known)

    def tokens(self, spectrogram: Floats) -> Tensor:
        """(n, bands, frames) to (n, 130)."""
        return self.tokenizer.encode(patches(spectrogram))

    def spectrograms(self, tokens: Tensor) -> Floats:
        """(n, 130) to (n, bands, frames)."""
        return unpatched(self.tokenizer.decode(tokens))

    def waves(self, tokens: Tensor) -> Floats:
        """(n, 130) to (n, samples), by Griffin and Lim."""
        return np.stack([sound(s) for s in self.spectrograms(tokens)])

    def extend(
        self, spectrogram: Floats, rows: int = 3, steps: int = 16, seed: int = 0, order: Order | None = None
    ) -> Floats:
        """The bands above the lowest 8 * rows, filled in from those: spectrograms (n, bands, frames) with the lower
        bands as they were given. What stands above is not read. Never trained for. Raises UsageError where no row is
        known or none is left."""
        if not 0 < rows < ROWS:
            raise UsageError(f"extend(rows={rows!r}): 1 to {ROWS - 1} rows of {PATCH} bands are known.")
        low = np.array(spectrogram)
        low[:, rows * PATCH :] = -1.0
        tokens = self.tokens(low).reshape(-1, COLUMNS, ROWS)
        tokens[:, :, rows:] = self.predictor.mask
        tokens = tokens.flatten(1)
        process = self.process(None, steps, order, known=tokens[0].tolist())
        found = self.spectrograms(sample(process, len(tokens), seed=seed, tokens=tokens).tokens)
        found[:, : rows * PATCH] = spectrogram[:, : rows * PATCH]
        return found


def patches(spectrogram: Floats) -> Tensor:
    """(n, bands, frames) to (n, 5, 26, 64)."""
    x = torch.from_numpy(np.asarray(spectrogram, dtype=np.float32))
    return x.reshape(-1, ROWS, PATCH, COLUMNS, PATCH).transpose(2, 3).flatten(3)


def unpatched(found: Tensor) -> Floats:
    """(n, 5, 26, 64) to (n, bands, frames), within -1..1."""
    x = found.reshape(-1, ROWS, COLUMNS, PATCH, PATCH).transpose(2, 3).reshape(-1, BANDS, FRAMES)
    return np.asarray(x.clamp(-1, 1).numpy(), dtype=np.float64)


def sound_tokenizer(recipe: SoundRecipe | None = None, say: Callable[[str], None] | None = None) -> Tokenizer:
    """The tokenizer of a recipe, trained the first time and kept in the cache folder."""
    recipe = recipe or SoundRecipe()

    def make(name: str, folder: Path) -> None:
        found = train_tokenizer(
            recipe.tokenizer, patches(spectrograms(clips(recipe.clips, recipe.seed).waves)), say=say
        )
        kept.save(found.state_dict(), {"name": name, "recipe": asdict(recipe.tokenizer)}, name, folder)

    path = kept.kept("sound-tokenizer", [asdict(recipe.tokenizer), recipe.clips, recipe.seed], make)
    tensors, _ = kept.load(path.stem, path.parent)
    tokenizer = Tokenizer(recipe.tokenizer)
    tokenizer.load_state_dict(tensors)
    return tokenizer.eval().requires_grad_(False)


def sound_predictor(
    recipe: SoundRecipe | None = None, causal: bool = False, say: Callable[[str], None] | None = None
) -> NetworkPredictor:
    """The masked transformer of a recipe, or its autoregressive rival, on the tokens of that recipe's tokenizer."""
    recipe = recipe or SoundRecipe()

    def data() -> tuple[Tensor, Tensor]:
        some = clips(recipe.clips, recipe.seed)
        tokens = sound_tokenizer(recipe, say).encode(patches(spectrograms(some.waves)))
        return tokens, torch.from_numpy(some.kinds)

    learned = recipe.causal() if causal else recipe.masked
    told = [asdict(recipe.tokenizer), recipe.clips, recipe.seed]
    return trained("sound-causal" if causal else "sound-masked", learned, data, told, say)


def spec_maskgit(recipe: SoundRecipe | None = None, say: Callable[[str], None] | None = None) -> SpecMaskGIT:
    """The model of a recipe, trained the first time (minutes) and kept in the cache folder."""
    return SpecMaskGIT(sound_tokenizer(recipe, say), sound_predictor(recipe, say=say))
