"""Row 78: SpecMaskGIT against autoregressive decoding of the same tokens, and bandwidth extension without training.

Stated time: five minutes on one quiet core, and three more the first time, when the tokenizer and both transformers are
trained (then they are kept).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.calibrate.interval import bootstrap_mean
from anystep.diffusion.evaluate import energy_distance, frechet
from anystep.diffusion.masked import Confidence, LeftToRight, Linear, MaskedProcess, Random, Spread, sample
from anystep.diffusion.masked.sounds import (
    KINDS,
    RATE,
    SAMPLES,
    WINDOW,
    Clips,
    Floats,
    clips,
    mel_bands,
    spectrograms,
)
from anystep.diffusion.masked.spec_maskgit import (
    COLUMNS,
    LENGTH,
    PATCH,
    ROWS,
    SoundRecipe,
    SpecMaskGIT,
    patches,
    sound_predictor,
    spec_maskgit,
)
from anystep.experiments._figures import held, paired, ratio, table
from anystep.experiments.check import Check, Result

ROW = 78
PASSES = 16
KNOWN = 3  # rows of patches below the cut-off, a boundary between patches
DECIBELS = 30.0  # of one unit of a spectrogram


@dataclass(frozen=True)
class Figures:
    """What samples of one seed came to. right: (n,) whether the wanted kind is recognised."""

    right: Floats
    frechet: float
    energy: float


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    recipe: SoundRecipe | None = None,
    each: int = 20,
    seeds: int = 3,
    extended: int = 240,
    learn: int = 600,
    studied: int = 2_000,
) -> Result:
    """Check every clause of the row.

    recipe: of the models. each: sounds of each kind a seed. seeds: of samples. extended: held-out clips whose upper
    bands are filled in. learn: updates of the classifier that recognises kinds. studied: clips that it learns from;
    fewer of others serve as reference and for the baselines' statistics.
    """
    began = time.perf_counter()
    model = spec_maskgit(recipe, progress)
    rival = SpecMaskGIT(model.tokenizer, sound_predictor(recipe, causal=True, say=progress))
    judge, real = classifier(clips(studied, seed + 9_000), learn), clips(studied * 2 // 5, seed + 8_000)
    reference = spectrograms(real.waves)
    coded = model.spectrograms(model.tokens(reference))
    floor = float((judge.kinds(reference) == real.kinds).mean()), float((judge.kinds(coded) == real.kinds).mean())
    progress(f"kinds recognised: held-out clips {floor[0]:.3f}, through their tokens {floor[1]:.3f}")
    arms: dict[str, tuple[MaskedProcess, int]] = {
        "16 passes": (model.process(steps=PASSES), seeds),
        "autoregressive": (rival.process(steps=LENGTH, order=LeftToRight(), pace=Linear()), seeds),
        **{name: (process, 1) for name, process in ablations(model).items()},
    }
    kinds = np.repeat(np.arange(len(KINDS)), each).tolist()
    found: dict[str, list[Figures]] = {}
    passes: dict[str, float] = {}
    for name, (process, times) in arms.items():
        found[name] = []
        for i in range(times):
            drawn = sample(process, len(kinds), kinds, seed=1_000 * seed + i)
            passes[name] = drawn.cost.evaluations / len(kinds)
            found[name].append(figures(judge, model.spectrograms(drawn.tokens), np.array(kinds), coded))
        progress(f"{name}: right {np.mean([f.right for f in found[name]]):.3f}, {found[name][0].frechet:.3f}")
    ours, theirs = found["16 passes"], found["autoregressive"]
    checks = [*quality(ours, theirs), *speed(model, passes)]
    trained = spectrograms(clips(studied // 5, seed + 6_000).waves)
    wide, told = extension(model, clips(extended, seed + 7_000), trained, seed)
    notes = f"{_notes(found, passes)}\n\nKinds recognised in held-out clips {floor[0]:.3f}, in their tokens' " + (
        f"spectrograms {floor[1]:.3f}. Frechet and energy distances against those.\n\n{told}"
    )
    return Result("spec_maskgit", ROW, (*checks, *wide), time.perf_counter() - began, seed, notes)


def ablations(model: SpecMaskGIT) -> dict[str, MaskedProcess]:
    """What is distinctive, one thing at a time."""
    return {
        "4 passes": model.process(steps=4),
        "8 passes": model.process(steps=8),
        "32 passes": model.process(steps=32),
        "16, linear pace": model.process(steps=PASSES, pace=Linear()),
        "16, surest only": model.process(steps=PASSES, order=Confidence(noise=0.0)),
        "16, random order": model.process(steps=PASSES, order=Random()),
        "16, spread order": model.process(steps=PASSES, order=Spread((COLUMNS, ROWS))),
        "8 passes, guidance 2": model.process(steps=8, guidance=2.0),
    }


def quality(ours: Sequence[Figures], theirs: Sequence[Figures]) -> list[Check]:
    """The clauses on what is made."""
    right = paired(np.concatenate([f.right for f in ours]), np.concatenate([f.right for f in theirs]))
    checks = [held("accuracy of the wanted kind, 16 passes minus autoregressive", right, ">=", -0.03)]
    for name in ("frechet", "energy"):
        mine, other = (np.array([getattr(f, name) for f in some]) for some in (ours, theirs))
        clause = f"{name} distance of features, 16 passes over autoregressive, {len(ours)} seeds"
        checks.append(held(clause, ratio(mine, other), "<=", 1.1))
    return checks


def speed(model: SpecMaskGIT, passes: dict[str, float]) -> list[Check]:
    """The clauses on what making costs."""
    began = time.perf_counter()
    model.waves(sample(model.process(kind=0, steps=PASSES), 1).tokens)
    took = (time.perf_counter() - began) / (SAMPLES / RATE)
    return [
        Check("autoregressive passes over ours", passes["autoregressive"] / passes["16 passes"], ">=", 8.0),
        Check("passes", passes["16 passes"], "<=", 16.0),
        Check("seconds to make one second of sound, Griffin-Lim included", took, "<", 1.0),
    ]


def extension(model: SpecMaskGIT, held_out: Clips, train: Floats, seed: int) -> tuple[list[Check], str]:
    """The clause on bandwidth extension, from waves that were low-passed for real."""
    limited = spectrograms(low_passed(held_out.waves))
    truth = spectrograms(held_out.waves)
    cut = KNOWN * PATCH
    seen = model.tokens(limited).reshape(-1, COLUMNS, ROWS)[:, :, :KNOWN]
    same = float((seen == model.tokens(truth).reshape(-1, COLUMNS, ROWS)[:, :, :KNOWN]).float().mean())
    limited[:, :cut] = truth[:, :cut]  # what a receiver has below the cut-off; only the codes are of the limited one
    arms = {
        "MaskGIT, confidence": model.extend(limited, KNOWN, PASSES, seed),
        "MaskGIT, random order": model.extend(limited, KNOWN, PASSES, seed, Random()),
        "lower bands copied up": copied(limited, train, cut),
        "mean of the lower bands": levelled(limited, train, cut),
        "nothing above": limited,
        "true tokens": model.spectrograms(model.tokens(truth)),
    }
    far = {name: distance(x[:, cut:], truth[:, cut:]) for name, x in arms.items()}
    base = min(("lower bands copied up", "mean of the lower bands"), key=lambda name: float(far[name].mean()))
    clause = f"bandwidth extension: log-spectral distance over the better copy's ({base})"
    check = held(clause, ratio(far["MaskGIT, confidence"], far[base]), "<=", 0.8)
    lines = [[name, str(bootstrap_mean(d.tolist()))] for name, d in far.items()]
    told = table(["upper bands", "log-spectral distance, dB"], lines)
    return [check], f"{told}\n\nCodes below the cut-off that low-passing leaves as they are: {same:.3f}."


def low_passed(waves: Floats) -> Floats:
    """Nothing above the lowest frequency of the band above the cut-off."""
    band = mel_bands()[KNOWN * PATCH]
    edge = float(np.flatnonzero(band)[0]) * RATE / WINDOW
    spectrum = np.fft.rfft(waves)
    spectrum[:, np.fft.rfftfreq(waves.shape[1], 1 / RATE) > edge] = 0
    return np.fft.irfft(spectrum, waves.shape[1])


def copied(x: Floats, train: Floats, cut: int) -> Floats:
    """The bands below the cut-off again above it, shifted and scaled to each band's mean and spread in training."""
    found, bands = np.array(x), x.shape[1] - cut
    source = x[:, cut - bands : cut]
    mean, spread = train.mean((0, 2))[:, None], train.std((0, 2))[:, None]
    scaled = (source - mean[cut - bands : cut]) / spread[cut - bands : cut]
    found[:, cut:] = np.clip(scaled * spread[cut:] + mean[cut:], -1, 1)
    return found


def levelled(x: Floats, train: Floats, cut: int) -> Floats:
    """Each frame's mean below the cut-off, shifted and scaled to each band's mean and spread in training."""
    found, low = np.array(x), x[:, :cut].mean(1, keepdims=True)
    known = train[:, :cut].mean(1, keepdims=True)
    mean, spread = train.mean((0, 2))[:, None], train.std((0, 2))[:, None]
    found[:, cut:] = np.clip((low - known.mean()) / known.std() * spread[cut:] + mean[cut:], -1, 1)
    return found


def distance(x: Floats, y: Floats) -> Floats:
    """(n,) log-spectral distance in dB: over bands the root of the mean square, over frames the mean."""
    return np.asarray(DECIBELS * np.sqrt(((x - y) ** 2).mean(1)).mean(-1))


class Judge(nn.Module):
    """Recognises kinds in spectrograms; its 16 features are what Frechet distances are taken in."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.mix = nn.Conv2d(PATCH * PATCH, 48, 1), nn.Conv2d(48, 48, 3, padding=1)
        self.narrow, self.leave = nn.Linear(96, 16), nn.Linear(16, len(KINDS))

    def features(self, x: Floats) -> Tensor:
        """(n, 16)."""
        found = F.gelu(self.mix(F.gelu(self.enter(patches(x).permute(0, 3, 1, 2)))))
        return torch.tanh(self.narrow(torch.cat([found.mean((2, 3)), found.amax((2, 3))], -1)))

    @torch.no_grad()
    def kinds(self, x: Floats) -> Floats:
        """(n,) the likeliest kind."""
        return np.asarray(self.leave(self.features(x)).argmax(-1).numpy())


def classifier(some: Clips, updates: int) -> Judge:
    """A judge that learned from clips that no other model saw."""
    x, kinds = spectrograms(some.waves), torch.from_numpy(some.kinds)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        judge = Judge()
    optimiser, drawn = torch.optim.AdamW(judge.parameters(), 3e-3), torch.Generator().manual_seed(0)
    for update in range(updates):
        optimiser.param_groups[0]["lr"] = 3e-3 * min(1.0, 0.02 + 1.5 * (1 - update / updates))
        rows = torch.randint(len(x), (64,), generator=drawn)
        loss = F.cross_entropy(judge.leave(judge.features(x[rows.numpy()])), kinds[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return judge.eval().requires_grad_(False)


def figures(judge: Judge, x: Floats, kinds: Floats, reference: Floats) -> Figures:
    """Samples (n, bands, frames) that were wanted to be of these kinds, against real ones' spectrograms."""
    mine, real = judge.features(x), judge.features(reference)
    return Figures((judge.kinds(x) == kinds).astype(np.float64), frechet(mine, real), energy_distance(mine, real))


def _notes(found: dict[str, list[Figures]], passes: dict[str, float]) -> str:
    rows: list[list[object]] = []
    for name, some in found.items():
        right = str(bootstrap_mean(np.concatenate([f.right for f in some]).tolist()))
        means = [float(np.mean([getattr(f, what) for f in some])) for what in ("frechet", "energy")]
        rows.append([name, f"{passes[name]:.0f}", len(some), right, *means])
    return table(["arm", "evaluations", "seeds", "kind recognised", "Frechet", "energy"], rows)
