"""Row 209: single-pass, reference-guided step annotation, against rollouts, and what is learned from its labels.

Stated time: twelve minutes on one quiet core, and ten more the first time, when the annotators are trained (then they
are kept). Families: arithmetic, lists, and countdown with three or four numbers, at levels 1 and 2.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from anystep.calibrate.interval import bootstrap_mean, level
from anystep.experiments._figures import held, paired, table
from anystep.experiments._spare import (
    ROWS,
    Labels,
    Pool,
    Reading,
    alignments,
    chosen,
    counts,
    distinct,
    f1,
    noted,
    pools,
    single,
    varied,
)
from anystep.experiments.check import Check, Result
from anystep.language.train.chainlm import Cost, policy
from anystep.language.train.labelled import ends_labelled, steps_labelled
from anystep.language.train.labelled import train as fitted
from anystep.language.train.orpo import Orpo, Preference, orpo, preferences
from anystep.language.train.reward import Fitting, step_reward
from anystep.language.train.rollouts import rolled_out
from anystep.language.train.sampler import sample_many
from anystep.language.train.spare import SpareRecipe
from anystep.language.train.spare import spare as trained
from anystep.language.train.tune import kept
from anystep.process import Floats
from anystep.tasks.chains import FAMILIES

ROW = 209
COMBINE: dict[str, Callable[[Sequence[float]], float]] = {"last": lambda p: p[-1], "product": math.prod, "min": min}


@dataclass(frozen=True)
class Setting:
    """How much of everything. annotator: its recipe. ablation: padded tokens that two ablated ones are trained on for,
    to be tried on `ablated` problems. test: problems with varied candidates, `each` a problem; pooled: problems whose
    pools rewards choose from; rolled: those of them that rollouts label, too, `rollouts` a step. taught: training
    problems with pools, their families weighed by `mix`. A pool has `samples` samples of the policy and `planted`
    chains with a wrong step and a right end. seeds: of each reward; tuned: of each policy. greedy: countdown problems
    for offline training's accuracy. combine: how a step reward's numbers become one.
    """

    split: str = "test"
    annotator: SpareRecipe = field(default_factory=SpareRecipe)
    ablation: int = 30_000
    ablated: int = 50
    test: int = 160
    each: int = 3
    pooled: int = 120
    rolled: int = 30
    rollouts: int = 8
    taught: int = 240
    mix: Mapping[str, float] = field(default_factory=lambda: {"C": 0.7, "A": 0.15, "L": 0.15})
    samples: int = 6
    planted: int = 2
    seeds: int = 3
    tuned: int = 1
    fitting: Fitting = field(
        default_factory=lambda: Fitting(
            tokens=30_000, groups=3, micro=1, each=8, pairs=0.5, matrix_rate=1.5e-3, other_rate=1.5e-3, warm_steps=5
        )
    )
    orpo: Orpo = field(default_factory=Orpo)
    greedy: int = 200
    combine: str = "product"


def run(seed: int = 0, progress: Callable[[str], None] = print, setting: Setting | None = None) -> Result:
    """Check every clause of the row, on test problems unless `setting` says otherwise."""
    began, setting = time.perf_counter(), setting or Setting()
    write, told = policy(setting.annotator.start), list[str]()
    annotator = loaded(trained(setting.annotator, progress))
    seen = varied(distinct(setting.split, setting.test, seed, setting.annotator), write, setting.each, seed)
    reading = noted(seen, annotator)
    checks = list(annotation(seen, reading, told))
    progress(str(checks[0]))
    held_out = pools(
        distinct(setting.split, setting.pooled, seed + 1, setting.annotator),
        write, setting.samples, setting.planted, seed,
    )  # fmt: skip
    checks += cost(held_out[: setting.rolled], write, annotator, setting, told)
    progress(str(checks[-1]))
    shown = distinct("train", setting.taught, seed + 2, replace(setting.annotator, mix=setting.mix))
    taught = pools(shown, write, setting.samples, setting.planted, seed)
    labels = noted(taught, annotator).labelling.labels
    checks += rewards(taught, labels, held_out, seed, setting, told, progress)
    checks += offline(taught, labels, seed, setting, told, progress)
    ablations(seen, reading, setting, told, progress)
    return Result("spare", ROW, tuple(checks), time.perf_counter() - began, seed, "\n\n".join(told))


def loaded(card: Path) -> Any:
    """A kept Llama and its alphabet."""
    return policy(card.stem, card.parent)


def annotation(seen: Sequence[Pool], reading: Reading, told: list[str]) -> Iterator[Check]:
    """Labels and alignments on candidates with planted errors, merged and reordered lines, and the control."""
    labels = reading.labelling.labels
    steps = int(sum(len(row) for one in labels for row in one))
    wrong, macro = f1(counts(seen, labels))
    yield held(f"F1 of wrong steps, {steps:,} steps", wrong, ">=", 0.9)
    yield held("F1 of steps, mean of wrong and right", macro, ">=", 0.9)
    many = [row for row in alignments(seen, reading, True) if row]
    yield held("one-to-many alignments of merged lines recovered exactly", level(many), ">=", 0.9)
    deceiving = [
        (all(said), float(ended))
        for pool, mine in zip(seen, labels, strict=True)
        for said, ended, right in zip(mine, pool.ended, pool.right, strict=True)
        if ended and not right
    ]
    passed = level([[float(ours)] for ours, _ in deceiving])
    yield held(
        f"of {len(deceiving)} chains with a wrong step and a right end, share passed as right", passed, "<=", 0.1
    )
    yield Check(
        "the same of the control that compares ends alone", float(np.mean([c for _, c in deceiving])), ">=", 0.9
    )
    told.append(by_family(seen, reading))


def by_family(seen: Sequence[Pool], reading: Reading) -> str:
    """A table of F1, over all steps and up to each chain's first error, alignments and unreadable lines by family."""
    rows: list[list[object]] = []
    names = [f"{p.problem.family}{p.problem.level if p.problem.family == 'C' else ''}" for p in seen]
    for name in [*sorted(set(names)), "all"]:
        at = [i for i, n in enumerate(names) if name in (n, "all")]
        some = [seen[i] for i in at]
        part = Reading([reading.notes[i] for i in at], reading.labelling, [])
        mine = [reading.labelling.labels[i] for i in at]
        unread = [n is None for one in part.notes for notes in one for n in notes]
        figures = [f1(counts(some, mine, first))[i] for first in (False, True) for i in (0, 1)]
        aligned = [level([r for r in alignments(some, part, many) if r]).value for many in (False, True)]
        rows.append([name, len(unread), *(f.value for f in figures), *aligned, float(np.mean(unread))])
    head = [
        "family",
        "steps",
        "F1 wrong",
        "F1 mean",
        "to first error: wrong",
        "mean",
        "aligned",
        "merged",
        "unreadable",
    ]
    return "Annotation of held-out candidates.\n\n" + table(head, rows)


def cost(some: Sequence[Pool], write: Any, annotator: Any, setting: Setting, told: list[str]) -> Iterator[Check]:
    """What one reading takes, against rollouts of the same chains by the same sampler on the same core."""
    ours = noted(some, annotator).labelling
    theirs = rolled_out(write[0], write[1], [(p.prompt, p.chains) for p in some], setting.rollouts, rows=ROWS)
    r = setting.rollouts
    yield Check(f"tokens read and written over those of {r} rollouts a step", ours.tokens / theirs.tokens, "<=", 0.4)
    yield Check(f"CPU seconds over those of {r} rollouts a step", ours.cpu_seconds / theirs.cpu_seconds, "<=", 0.4)
    rows = []
    for name, one in {"single pass": ours, f"{r} rollouts a step": theirs}.items():
        table_ = counts(some, one.labels)
        figures = [str(f) for f in f1(table_)]
        rows.append([name, one.read, one.written, f"{one.cpu_seconds:.1f}", *figures])
    told.append(
        f"{len(some)} pools of {len(some[0].chains)} chains, {setting.samples} of them samples of the policy; "
        f"{ROWS} texts side by side.\n\n"
        + table(["labels by", "tokens read", "written", "CPU seconds", "F1 of wrong steps", "F1, mean"], rows)
    )


def rewards(
    taught: Sequence[Pool],
    labels: Sequence[Sequence[Labels]],
    held_out: Sequence[Pool],
    seed: int,
    setting: Setting,
    told: list[str],
    progress: Callable[[str], None],
) -> Iterator[Check]:
    """Best of 8 by rewards that differ in their labels alone."""
    groups = {
        "true": [steps_labelled(p.prompt, p.chains, p.truth()) for p in taught],
        "spare": [steps_labelled(p.prompt, p.chains, row) for p, row in zip(taught, labels, strict=True)],
        "outcome": [ends_labelled(p.prompt, p.chains, p.ended) for p in taught],
    }
    combine = {"true": setting.combine, "spare": setting.combine, "outcome": "last"}
    k = setting.samples + setting.planted
    best: dict[str, Floats] = {}
    for arm, some in groups.items():
        runs = []
        for s in range(setting.seeds):
            fitting = replace(setting.fitting, seed=seed + s)

            def make(some: Any = some, fitting: Fitting = fitting) -> Any:
                model, spent = fitted(some, fitting)
                return model, model.trunk.config, spent

            told_of = {"arm": arm, "seed": seed, "fitting": asdict(fitting)} | pooled(setting, arm)
            card = kept(f"spare-{arm}", told_of, make, setting.annotator.start, kind="step-reward")
            runs.append(chosen(held_out, step_reward(card.stem, card.parent), COMBINE[combine[arm]], k))
            progress(f"reward from {arm} labels, seed {s}: best of {k} {runs[-1].mean():.3f}")
        best[arm] = np.stack(runs, 1)
    yield held(f"best of {k}: from these labels minus from true ones", paired(best["spare"], best["true"]), ">=", -0.02)
    outcome = paired(best["spare"], best["outcome"])
    yield held(f"best of {k}: from these labels minus from outcomes alone", outcome, ">", 0.0)
    rows: list[list[object]] = [
        [arm, str(bootstrap_mean(x.mean(1))), *map(float, x.mean(0))] for arm, x in best.items()
    ]
    rows.append(["(any chain at random)", str(bootstrap_mean([p.right.mean() for p in held_out]))])
    rows.append(["(a right one is there)", str(bootstrap_mean([p.right.max() for p in held_out]))])
    rows = [row + [""] * (2 + setting.seeds - len(row)) for row in rows]
    head = ["labels", f"best of {k}", *(f"seed {s}" for s in range(setting.seeds))]
    told.append(f"{len(held_out)} held-out pools, {setting.planted} of {k} chains planted.\n\n{table(head, rows)}")


def pooled(setting: Setting, arm: str) -> dict[str, Any]:
    """What decides the training pools and, for annotated ones, their labels."""
    shown = {name: getattr(setting, name) for name in ("taught", "mix", "samples", "planted")}
    return shown | {"annotator": asdict(setting.annotator) if arm == "spare" else None}


def offline(
    taught: Sequence[Pool],
    labels: Sequence[Sequence[Labels]],
    seed: int,
    setting: Setting,
    told: list[str],
    progress: Callable[[str], None],
) -> Iterator[Check]:
    """Greedy accuracy after preferences from these labels, from outcomes alone, and before."""
    pairs: dict[str, list[Preference]] = {
        "spare": [
            x for p, row in zip(taught, labels, strict=True) for x in preferences(p.prompt, p.chains, p.ended, row)
        ],
        "outcome": [x for p in taught for x in preferences(p.prompt, p.chains, p.ended)],
    }
    asked = distinct(setting.split, setting.greedy, seed + 3, replace(setting.annotator, mix={"C": 1.0}))
    others = distinct(
        setting.split, setting.greedy // 3, seed + 4, replace(setting.annotator, mix={"A": 0.5, "L": 0.5})
    )
    start, alphabet = policy(setting.annotator.start)
    scores: dict[str, list[Floats]] = {"start": [greedy(start, alphabet, asked)]}
    rest: dict[str, list[Floats]] = {"start": [greedy(start, alphabet, others)]}
    for arm, some in pairs.items():
        for s in range(setting.tuned):
            recipe = replace(setting.orpo, seed=seed + s)

            def make(some: Any = some, recipe: Orpo = recipe) -> Any:
                model, _ = policy(setting.annotator.start)
                spent = orpo(model, alphabet, some, recipe, lambda _: None) if some else Cost(0, 0, 0, 0.0, 0.0)
                return model.eval(), model.config, spent

            told_of = {"arm": arm, "seed": seed, "orpo": asdict(recipe)} | pooled(setting, arm)
            model, _ = loaded(kept(f"spare-orpo-{arm}", told_of, make, setting.annotator.start))
            scores.setdefault(arm, []).append(greedy(model, alphabet, asked))
            rest.setdefault(arm, []).append(greedy(model, alphabet, others))
            progress(f"offline training from {arm}, seed {s}: greedy {scores[arm][-1].mean():.3f}")
    means = {arm: np.mean(x, 0) for arm, x in scores.items()}
    for other, what in {"start": "before", "outcome": "from outcomes alone"}.items():
        clause = f"greedy accuracy on countdown after preferences from these labels minus {what}"
        yield held(clause, paired(means["spare"], means[other]), ">", 0.0)
    rows = [
        [arm, len(pairs.get(arm, [])), str(bootstrap_mean(means[arm])), str(bootstrap_mean(np.mean(rest[arm], 0)))]
        for arm in means
    ]
    head = ["preferences by", "pairs", "greedy, countdown", "arithmetic and lists"]
    told.append(f"{len(asked)} and {len(others)} held-out problems.\n\n{table(head, rows)}")


def greedy(model: Any, alphabet: Any, problems: Sequence[Any]) -> Floats:
    """Whether the greedy chain of each problem is right, all of it."""
    texts = sample_many(model, alphabet, [p.prompt for p in problems], 1, temperature=0.0)
    return np.array([FAMILIES[p.family].score(p.prompt, t[0]) for p, t in zip(problems, texts, strict=True)])


def ablations(
    seen: Sequence[Pool], reading: Reading, setting: Setting, told: list[str], progress: Callable[[str], None]
) -> None:
    """The annotator without one thing each. What changes its input or output is trained on from the whole one."""
    arms: dict[str, Sequence[Sequence[Labels]]] = {
        "whole": reading.labelling.labels,
        "its verdicts as written, evidence not weighed": reading.written,
        "one line of the reference at most": single(seen, reading).written,
    }
    some = seen[: setting.ablated]
    if setting.ablation:
        short = replace(setting.annotator, first=0, tokens=setting.ablation, last=0)
        earlier = trained(setting.annotator, progress)
        for name, recipe in {
            "no reference": replace(short, reference=False),
            "labels alone, no notes": replace(short, form="labels"),
        }.items():
            annotator = loaded(trained(recipe, progress, earlier))
            arms[name] = noted(some, annotator, recipe.reference, recipe.form == "notes").labelling.labels
    rows: list[list[object]] = []
    for name, labels in arms.items():
        figures = [f1(counts(some, labels[: len(some)], first)) for first in (False, True)]
        rows.append([name, *(str(x) for pair in figures for x in pair)])
        progress(f"ablation, {name}: F1 of wrong steps {figures[0][0]}")
    head = ["annotator", "F1 wrong", "F1 mean", "to first error: wrong", "mean"]
    more = f"the last two trained on for {setting.ablation:,} padded tokens" if setting.ablation else "two left out"
    told.append(f"Ablations on {len(some)} of the problems, {more}.\n\n{table(head, rows)}")
