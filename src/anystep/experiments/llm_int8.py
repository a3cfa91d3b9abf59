"""Row 76: LLM.int8() on SmolLM2 and Gemma 3, as they are and with outlier channels planted; and what each part does.

Stated time: seven minutes on one quiet core, and the download of both models the first time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F

from anystep.calibrate.interval import bootstrap_mean
from anystep.experiments._figures import table
from anystep.experiments._planted import plant
from anystep.experiments._prose import calibration, fingerprint, held_out
from anystep.experiments.check import Check, Result
from anystep.language.accelerate.llm_int8 import (
    Conversion,
    Int8Linear,
    Recipe,
    Seen,
    convert,
    encode,
    multiply,
    observe,
    product,
)
from anystep.language.engine.llama import Llama
from anystep.language.engine.weights import Weights, build
from anystep.process import Floats

ROW = 76
MODELS = ("smollm2-135m", "gemma-3-270m")
OURS = Recipe(share=0.97, columns="row", zero_point=True)
FIXED = Recipe(share=0.96)  # memory stays below 55% of fp16
ABLATIONS = {
    "absmax per tensor": Recipe("tensor", threshold=0),
    "zero point per tensor": Recipe("tensor", zero_point=True, threshold=0),
    "row-wise": Recipe("row", threshold=0),
    "vector-wise": Recipe(threshold=0),
    "vector-wise, zero point": Recipe(zero_point=True, threshold=0),
    "columns fixed": FIXED,
    "columns fixed, row-wise": replace(FIXED, scales="row"),
    "columns fixed, zero point": replace(FIXED, zero_point=True),
    "columns fixed, dequantised": replace(FIXED, copy=False),
    "columns by call": replace(FIXED, columns="call"),
    "columns by call, dequantised": replace(FIXED, columns="call", copy=False),
    "columns by row": replace(OURS, zero_point=False),
    "columns by row, zero point": OURS,
    "columns by row, zero point, dequantised": replace(OURS, copy=False),
}
SWEEP = {
    **{f"columns fixed, share {share}": Recipe(share=share) for share in (0.99, 0.9)},
    **{f"columns fixed, threshold {at:g}": Recipe(threshold=at) for at in (12.0, 6.0, 3.0)},
}
BRIEF = ("vector-wise", "columns fixed, zero point", "columns by row, zero point")
PLANTED = (*BRIEF, "columns by row, zero point, dequantised")


@dataclass(frozen=True)
class Subject:
    """A model at rest with the texts that it is measured and calibrated on, as tokens."""

    name: str
    weights: Weights
    texts: list[list[int]]
    calibration: list[list[int]]
    planted: bool = False

    def fresh(self) -> Llama:
        """The model in fp32, its layers still to be replaced."""
        model = build(self.weights, "fp32")
        assert isinstance(model, Llama)
        return plant(model) if self.planted else model


@dataclass(frozen=True)
class Reading:
    """What a model made of the texts: surprise in nats (texts, positions); and how it was converted."""

    surprise: Floats
    done: Conversion | None = None


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    models: Sequence[str] = MODELS,
    windows: int = 6,
    few: int = 2,
    size: int = 512,
) -> Result:
    """Check every clause of the row. windows: texts of `size` tokens that the clauses on a model as it is are measured
    on; few: for ablations, of which the first model has all, and for the models with planted outliers."""
    began = time.perf_counter()
    checks, rows = list(exact(seed)), []
    for name in models:
        subject = subject_of(name, windows, size)
        seen = observe(subject.fresh(), subject.calibration)
        plain = read(subject, None, None)
        ours = read(subject, OURS, seen)
        checks += natural(subject, plain, ours)
        progress("\n".join(map(str, checks[-3:])))
        subject = replace(subject, texts=subject.texts[:few])
        for form, recipe in {**ABLATIONS, **SWEEP}.items():
            if name == models[0] or form in BRIEF:
                rows.append(line(subject, form, plain, read(subject, recipe, seen)))
                progress(" | ".join(map(str, rows[-1])))
        found, lines = outliers(replace(subject, planted=True), plain, progress)
        checks, rows = checks + found, rows + lines
    head = ["model", "form", "perplexity", "change", "in int8", "of fp16's memory"]
    told = f"{windows} held-out texts of {size} tokens, {few} for this table; texts {fingerprint()}."
    told += f"\n\n{table(head, rows)}"
    return Result("llm_int8", ROW, tuple(checks), time.perf_counter() - began, seed, told)


def subject_of(name: str, windows: int, size: int) -> Subject:
    from anystep.language.loading import read as weights_of

    weights = weights_of(name, lambda line: None)

    def tokens(text: str) -> list[int]:
        return list(weights.tokenizer.encode(text))

    return Subject(name, weights, held_out(tokens, windows, size), calibration(tokens, size))


def exact(seed: int) -> Iterator[Check]:
    """The clause on the product, over shapes of both models and a few awkward ones, extremes included."""
    draw, wrong, products = torch.Generator().manual_seed(seed), 0, 0
    for rows, inputs, outputs in ((1, 576, 1536), (7, 1536, 576), (33, 640, 2048), (64, 2048, 640), (3, 17, 5)):
        x, w = (torch.randint(-127, 128, (n, inputs), generator=draw).to(torch.int8) for n in (rows, outputs))
        x[0], w[0] = 127, -127  # the largest sum there is
        wrong += int((product(x, w) != x.long() @ w.long().T).sum())
        products += rows * outputs
        a, b = encode(x.float(), True), encode(w.float(), True)
        whole = (a.codes.double() @ b.codes.double().T * (a.scale * b.scale.T)).float()
        wrong += int((multiply(a, b) != whole).sum())
    yield Check(f"int8 products of {products:,} that differ from the int32 reference", wrong, "==", 0)


@torch.inference_mode()
def read(subject: Subject, recipe: Recipe | None, seen: dict[str, Seen] | None) -> Reading:
    """The surprise of a model converted by `recipe`, or as it is."""
    model = subject.fresh()
    done = None if recipe is None else convert(model, recipe, seen)
    found = []
    for text in subject.texts:
        logits = model.logits(model(torch.tensor([text[:-1]])))[0]
        found.append(F.cross_entropy(logits, torch.tensor(text[1:]), reduction="none").double().numpy())
    return Reading(np.array(found), done)


def change(plain: Reading, ours: Reading) -> tuple[float, tuple[float, float]]:
    """The relative change of perplexity and its interval, bootstrapped over stretches of 32 tokens of one text."""
    apart = (ours.surprise - plain.surprise[: len(ours.surprise)])[:, : ours.surprise.shape[1] // 32 * 32]
    spread = bootstrap_mean(list(apart.reshape(-1, 32).mean(1)))
    return float(np.expm1((ours.surprise - plain.surprise[: len(ours.surprise)]).mean())), (
        float(np.expm1(spread.low)),
        float(np.expm1(spread.high)),
    )


def natural(subject: Subject, plain: Reading, ours: Reading) -> Iterator[Check]:
    """The clauses on a model as it is."""
    assert ours.done is not None
    value, interval = change(plain, ours)
    who = subject.name
    at = [part.threshold for part in ours.done.model.modules() if isinstance(part, Int8Linear)]
    yield Check(f"{who}: perplexity over full precision's, less 1", value, "<=", 0.01, interval)
    yield Check(f"{who}: bytes of linear layers over fp16's", ours.done.bytes / ours.done.fp16_bytes, "<=", 0.55)
    clause = f"{who}: share of multiply-accumulates in int8 (layers' thresholds {min(at):.2f} to {max(at):.2f})"
    yield Check(clause, ours.done.work.share, ">=", 0.95)


def line(subject: Subject, form: str, plain: Reading, ours: Reading) -> list[object]:
    assert ours.done is not None
    value, (low, high) = change(plain, ours)
    who = subject.name + (", planted" if subject.planted else "")
    spread = f"{100 * value:+.2f}% [{100 * low:+.2f}, {100 * high:+.2f}]"
    held = ours.done.bytes / ours.done.fp16_bytes
    return [who, form, f"{np.exp(ours.surprise.mean()):.2f}", spread, f"{ours.done.work.share:.4f}", f"{held:.3f}"]


def outliers(
    subject: Subject, plain: Reading, progress: Callable[[str], None]
) -> tuple[list[Check], list[list[object]]]:
    """The clauses on planted channels; the columns follow from the planted model's own calibration."""
    seen = observe(subject.fresh(), subject.calibration)
    who = f"{subject.name} with planted outliers"
    moved = np.abs(read(subject, None, None).surprise - plain.surprise[: len(subject.texts)]).max()
    checks = [Check(f"{who}: most that planting moves a token's surprise", float(moved), "<", 0.01)]
    rows: list[list[object]] = []
    for form in PLANTED:
        ours = read(subject, ABLATIONS[form], seen)
        rows.append(line(subject, form, plain, ours))
        progress(" | ".join(map(str, rows[-1])))
        value, interval = change(plain, ours)
        clause = f"{who}, {form}: perplexity over full precision's, less 1"
        if form == "vector-wise":
            checks.append(Check(clause, value, ">", 0.10, interval))
        elif ABLATIONS[form] == OURS:
            assert ours.done is not None
            checks.append(Check(clause, value, "<=", 0.01, interval))
            checks.append(Check(f"{who}: share of multiply-accumulates in int8", ours.done.work.share, ">=", 0.95))
    return checks, rows
