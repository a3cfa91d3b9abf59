"""Masked transformers and tokenizers learn what there is to learn, miniature; sounds go to spectrograms and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from anystep import UsageError
from anystep.diffusion.masked import (
    LeftToRight,
    MaskedProcess,
    MaskedRecipe,
    NetworkPredictor,
    Shape,
    TokenTransformer,
    log_likelihood,
    train,
)
from anystep.diffusion.masked.sounds import BANDS, FRAMES, SAMPLES, clips, sound, spectrograms
from anystep.diffusion.masked.spec_maskgit import SoundRecipe, patches, spec_maskgit, unpatched
from anystep.diffusion.masked.tokenizer import TokenizerRecipe, train_tokenizer
from anystep.diffusion.masked.training import load, save
from anystep.diffusion.models import dna, dna_data
from anystep.experiments import spec_maskgit as spec_experiment
from anystep.testing import check_process

TINY = Shape(6, 3, classes=2, width=16, layers=1, heads=2)


def copies(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Every site of a row is the same symbol; the class says whether it may be 2."""
    labels = torch.arange(n) % 2
    symbols = torch.randint(0, 2, (n,), generator=torch.Generator().manual_seed(0)) + labels
    return symbols[:, None].expand(n, 6).contiguous(), labels


@pytest.mark.parametrize("causal", [False, True])
def test_a_transformer_makes_a_lawful_process(causal: bool) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = TokenTransformer(Shape(5, 3, classes=2, width=32, layers=2, causal=causal))
    torch.nn.init.normal_(module.head.weight)
    steps, order = (5, LeftToRight()) if causal else (2, None)
    check_process(MaskedProcess(NetworkPredictor(module, 5, 3, 2), steps, order, condition=1))


@pytest.mark.parametrize("causal", [False, True])
def test_it_learns_what_sites_tell_of_each_other(causal: bool) -> None:
    tokens, labels = copies(64)
    shape = Shape(6, 3, classes=2, width=16, layers=1, heads=2, causal=causal)
    module, cost = train(MaskedRecipe(shape, updates=150, batch=32, rate=1e-2), tokens, labels)
    assert cost.tokens == 150 * 32 * 6
    model = NetworkPredictor(module, 6, 3, 2)
    shown, kinds = torch.tensor([[1, 3, 3, 3, 3, 3], [2, 2, 3, 3, 3, 3]]), torch.tensor([0, 1])
    said = model(shown, kinds).exp()
    assert said[0, 1, 1] > 0.9 and said[1, 2, 2] > 0.9
    first = model(torch.full((2, 6), 3), kinds)[:, 0].exp()
    assert first[0, 2] < 0.1 and first[1, 0] < 0.1  # the class alone rules them out


def test_a_causal_model_does_not_look_ahead() -> None:
    module = TokenTransformer(Shape(6, 3, width=16, layers=1, heads=2, causal=True)).eval()
    torch.nn.init.normal_(module.head.weight, generator=torch.Generator().manual_seed(0))
    one, other = torch.tensor([[0, 1, 2, 0, 1, 2]]), torch.tensor([[0, 1, 2, 1, 0, 0]])
    none = torch.tensor([-1])
    a, b = module(one, none), module(other, none)
    assert torch.allclose(a[:, :4], b[:, :4]) and not torch.allclose(a[:, 4], b[:, 4])


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    tokens, labels = copies(16)
    recipe = MaskedRecipe(TINY, updates=2, batch=4)
    module, cost = train(recipe, tokens, labels)
    save(module, recipe, cost, "tiny", tmp_path)
    again = load("tiny", tmp_path)
    assert again.length == 6 and again.classes == 2
    before = NetworkPredictor(module, 6, 3, 2)(tokens[:2], labels[:2])
    assert torch.allclose(again(tokens[:2], labels[:2]), before, atol=0.05)
    with pytest.raises(UsageError, match="do not fit"):
        train(recipe, tokens[:, :4], labels)


def test_the_shipped_model_of_dna_knows_its_bases() -> None:
    model, tokens = dna(), torch.from_numpy(dna_data(40, seed=3))
    found = log_likelihood(model, tokens, draws=8).mean()
    assert found > log_likelihood(model, torch.flip(tokens, [0])[:, torch.randperm(32)], draws=8).mean()
    assert found > -32 * np.log(4)
    assert set("".join(model.texts(tokens))) == set("ACGT")


def test_a_tokenizer_learns_to_tell_patches_apart() -> None:
    recipe = TokenizerRecipe((2, 5), 4, codes=8, depth=4, width=16, updates=120, batch=16, rate=1e-2)
    kinds = torch.randint(0, 4, (64, 2, 5), generator=torch.Generator().manual_seed(0))
    x = torch.eye(4)[kinds]
    tokenizer = train_tokenizer(recipe, x)
    tokens = tokenizer.encode(x)
    assert tokens.shape == (64, 10)
    assert (tokenizer.decode(tokens) - x).square().mean() < 0.05
    # The encoder sees one patch: its code is the same wherever else things change.
    changed = x.clone()
    changed[:, :, 3:] = 0
    assert tokenizer.encode(changed)[:, :6].equal(tokens[:, :6])
    with pytest.raises(UsageError, match="wants"):
        train_tokenizer(recipe, x[:, :1])


def test_sounds_go_to_spectrograms_and_back() -> None:
    some = clips(8, seed=3)
    assert some.waves.shape == (8, SAMPLES) and np.abs(some.waves).max() <= 1
    assert np.array_equal(clips(8, seed=3).waves, some.waves)
    x = spectrograms(some.waves)
    assert x.shape == (8, BANDS, FRAMES) and x.min() >= -1 and x.max() <= 1
    assert np.allclose(unpatched(patches(x)), x, atol=1e-6)
    near = np.abs(spectrograms(sound(x[0], rounds=12)[None])[0] - x[0]).mean()
    assert near < 0.2 * np.abs(-1 - x[0]).mean()


def test_a_miniature_spec_maskgit_fills_in_upper_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    model = spec_maskgit(tiny_sounds())
    x = spectrograms(clips(3, seed=1).waves)
    wide = model.extend(x, rows=3, steps=4)
    assert np.array_equal(wide[:, :24], x[:, :24]) and not np.array_equal(wide[:, 24:], x[:, 24:])
    assert np.array_equal(model.extend(np.where(np.arange(BANDS)[:, None] < 24, x, 0.3), rows=3, steps=4), wide)
    assert model.process("drum").condition == 5
    for call in (lambda: model.process("harp"), lambda: model.extend(x, rows=5)):
        with pytest.raises(UsageError):
            call()


def test_the_experiment_of_row_78_runs_on_miniature_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    options = {"each": 1, "seeds": 2, "extended": 4, "learn": 3, "studied": 40}
    result = spec_experiment.run(recipe=tiny_sounds(), progress=lambda line: None, **options)
    assert result.row == 78 and len(result.checks) == 7
    exact = {c.clause: c for c in result.checks}
    assert exact["autoregressive passes over ours"].value == 130 / 16 and exact["passes"].value == 16
    assert "spread order" in result.notes and "true tokens" in result.notes


def tiny_sounds() -> SoundRecipe:
    small = TokenizerRecipe((5, 26), 64, codes=8, depth=4, width=16, updates=30, batch=8)
    return SoundRecipe(16, 1, small, MaskedRecipe(Shape(130, 8, 8, width=16, layers=1, heads=2), updates=4, batch=4))
