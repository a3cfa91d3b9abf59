"""Row 41: an uncertainty head on SmolLM2's frozen internals, against a step-reward model fine-tuned from SmolLM2, what
the next-token probabilities tell, and a linear probe: on two families it was trained on, and on one it was not.

Stated time: seventeen minutes of one quiet core the first time, of which the chains take five and the step model six;
both are then kept, and six minutes remain.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anystep.calibrate.interval import Interval, bootstrap_mean, paired_difference
from anystep.calibrate.reliability import auroc, ece
from anystep.calibrate.verdicts import share, verdicts
from anystep.experiments._figures import held, table
from anystep.experiments._step_model import StepModel, StepModelRecipe, by_chain, judged, kept_or_fitted, lower
from anystep.experiments._step_scores import (
    ASKED,
    WORDS,
    Pool,
    Probe,
    columns,
    flat,
    owners,
    paired_auroc,
    planted,
    self_judged,
    surprises,
    wrong,
)
from anystep.experiments.check import Check, Result
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Llama
from anystep.language.internals import Inside
from anystep.language.states import Sequences
from anystep.language.train.uncertainty import Head
from anystep.language.train.uncertainty_fit import SMOLLM2, HeadRecipe, fit, read, relative
from anystep.language.train.worked import Chain, ChainsRecipe, chains_of
from anystep.process import Floats
from anystep.verify.uncertainty import uncertainty_head

ROW = 41
MOST = 10_000_000
PROBLEMS, SAMPLES = 48, 8
FEW_EPOCHS = 10
WHOLE = replace(SMOLLM2.head.inside, attention=3, probabilities=4)


@dataclass(frozen=True)
class Sets:
    """Chains to learn from, to tune on, and to test on, by family; `unseen` is the family that nothing was tuned on.
    asked, words: how the model is asked for its own labels."""

    train: list[Chain]
    dev: list[Chain]
    tests: Mapping[str, list[Chain]]
    planted: Mapping[str, list[Chain]]
    unseen: str
    asked: str = ASKED
    words: tuple[str, str] = WORDS


@dataclass(frozen=True)
class Scores:
    """Of one family's test steps: how uncertain each scorer is of them, in order, and which are wrong."""

    chains: list[Chain]
    wrong: Floats
    owners: list[str]
    by: dict[str, Floats]

    def area(self, name: str) -> Interval:
        return auroc(self.by[name], self.wrong, self.owners)

    def gain(self, ours: str, theirs: str) -> Interval:
        return paired_auroc(self.by[ours], self.by[theirs], self.wrong, self.owners)


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    model: str | Engine = "smollm2-135m",
    sets: Sets | None = None,
    recipe: HeadRecipe = SMOLLM2.head,
    whole: Inside = WHOLE,
    step_model: StepModelRecipe | None = None,
    exact: Callable[[], Llama] | None = None,
) -> Result:
    """Check every clause of the row.

    model: a name, or an engine with `sets` of its own chains. whole: all features that the ablations choose from.
    exact: makes the base model in full precision, from which `step_model` is fine-tuned.
    """
    from anystep.language import load

    began = time.perf_counter()
    engine = load(model) if isinstance(model, str) else model
    before = fingerprint(engine.model)
    sets = sets or smollm2_sets(engine, seed, progress)
    learn = [*sets.train, *sets.dev]
    features = read(engine, learn, whole)
    progress(f"{len(learn):,} chains read, {time.perf_counter() - began:.0f} s")
    own = cut(features, columns(whole, recipe.inside, engine.config))
    head = fit(engine, sets.train, recipe, sets.dev, own, lambda line: None)
    progress(f"the head: {head.cost}")
    tuned, cost = kept_or_fitted(
        engine, exact or (lambda: base(engine.name)), sets.train, sets.dev,
        step_model or StepModelRecipe(), progress, lambda y, odds: auroc(odds.numpy(), (~y).numpy()).value,
    )  # fmt: skip
    dim, held = engine.config.dim, own[len(sets.train) :]
    plain = chosen(surprises(engine, [x[:, -dim:] for x in held], sets.dev), wrong(sets.dev))
    scores, seconds = tested(engine, sets, head, tuned, probed(own, sets), plain)
    checks = [
        Check("numbers of the model that differ after training and use", fingerprint(engine.model) != before, "==", 0),
        Check("parameters of the head", head.module.parameters_in_all, "<", MOST),
        *areas(scores, sets.unseen),
        *best_of(scores, sets.unseen),
        *costs(engine, head, sets),
    ]
    ablations = ablated(engine, sets, features, recipe, whole, progress)
    notes = told(engine, sets, head, scores, plain, cost, seconds, ablations)
    return Result("uncertainty_head", ROW, tuple(checks), time.perf_counter() - began, seed, notes)


def tested(
    engine: Engine, sets: Sets, head: Head, tuned: StepModel, probe: Probe, plain: Mapping[str, str]
) -> tuple[dict[str, Scores], dict[str, float]]:
    """What every scorer says of the test steps, and the processor seconds that the head and the step model took."""
    scores, seconds = {}, {"head": 0.0, "step model": 0.0}
    for family, chains in sets.tests.items():
        features = read(engine, chains, head.inside)
        at = time.process_time()
        by = {"head": flat(head.module.log_odds(features, relative(chains)))}
        seconds["head"] += time.process_time() - at
        at = time.process_time()
        by["step model"] = flat(list(by_chain(reads := lower(engine, chains, tuned.start), judged(tuned, reads))))
        seconds["step model"] += time.process_time() - at
        said = surprises(engine, [x[:, -engine.config.dim :] for x in features], chains)
        by |= {name: said[form] for name, form in plain.items()}
        by["linear probe"] = probe(features, chains)
        scores[family] = Scores(chains, wrong(chains), owners(chains), by)
    return scores, seconds


def smollm2_sets(engine: Engine, seed: int, progress: Callable[[str], None]) -> Sets:
    """The recorded setting: trained and tuned on counts and stories, never on which of two numbers is larger."""

    def every(recipes: Sequence[ChainsRecipe]) -> list[Chain]:
        return [chain for recipe in recipes for chain in chains_of(replace(recipe, seed=seed), progress)]

    families = ("counts", "stories", "larger")
    tests = {family: every([ChainsRecipe(family, PROBLEMS, SAMPLES, "test")]) for family in families}
    errors = {family: planted(engine, family, PROBLEMS, seed) for family in families}
    return Sets(every(SMOLLM2.train), every(SMOLLM2.dev), tests, errors, "larger")


def base(name: str) -> Llama:
    """The model in full precision, layer by layer."""
    from anystep.language import load

    model = load(name, weights="fp32").model
    assert isinstance(model, Llama)
    return model


def fingerprint(model: Any) -> str:
    """A hash of all of a model's numbers, its packed weights included as far as they are tensors."""
    told = blake2b()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, Tensor):
            told.update(name.encode() + tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return told.hexdigest()


def cut(features: Sequence[Tensor], some: Tensor) -> list[Tensor]:
    return [x[:, some] for x in features]


def variants(recipe: HeadRecipe, whole: Inside) -> dict[str, HeadRecipe]:
    """The head and what is left of it without what is its own, all on as few chains, seen more often."""
    recipe = replace(recipe, epochs=FEW_EPOCHS)
    return {
        "the head": recipe,
        "attention and probabilities, as in the paper": replace(
            recipe, inside=Inside(attention=whole.attention, probabilities=whole.probabilities)
        ),
        "attention only": replace(recipe, inside=Inside(attention=whole.attention)),
        "probabilities only": replace(recipe, inside=Inside(probabilities=whole.probabilities)),
        "no encoder": replace(recipe, layers=0),
    }


@dataclass(frozen=True)
class Ablations:
    """AUROC on dev of heads taught on few chains: by the checker, and by the model's own labels; and how often those
    are the checker's."""

    chains: int
    dev: dict[str, Interval]
    same: float


def ablated(
    engine: Engine,
    sets: Sets,
    features: Sequence[Tensor],
    recipe: HeadRecipe,
    whole: Inside,
    progress: Callable[[str], None],
) -> Ablations:
    """Every variant on the first chain of every other problem, and the head on the labels the model gave those."""
    first = {chain.problem: i for i, chain in reversed(list(enumerate(sets.train)))}
    some = sorted(first.values())[::2]
    few = [sets.train[i] for i in some]
    ours = self_judged(engine, few, sets.asked, sets.words)
    pairs = zip(flat([c.labels for c in ours]), flat([c.labels for c in few]), strict=True)
    taught = {name: (each, few) for name, each in variants(recipe, whole).items()}
    taught["self-labels"] = (taught["the head"][0], ours)
    dev, features_dev = {}, features[len(sets.train) :]
    for name, (each, chains) in taught.items():
        own = cut([*(features[i] for i in some), *features_dev], columns(whole, each.inside, engine.config))
        head = fit(engine, chains, each, sets.dev, own, lambda line: None)
        said = flat(head.module.log_odds(own[len(few) :], relative(sets.dev)))
        dev[name] = auroc(said, wrong(sets.dev), owners(sets.dev))
        progress(f"{name}: dev {dev[name]}")
    return Ablations(len(few), dev, float(np.mean([a == b for a, b in pairs])))


def chosen(said: Mapping[str, Floats], y: Floats) -> dict[str, str]:
    """Of each kind of surprise, the form (mean or greatest over the step's tokens) that ranks dev's steps better."""
    best: dict[str, tuple[float, str]] = {}
    for form, x in said.items():
        kind = form.partition(",")[0]
        best[kind] = max(best.get(kind, (-1.0, "")), (auroc(x, y).value, form))
    return {kind: form for kind, (_, form) in best.items()}


def probed(features: Sequence[Tensor], sets: Sets) -> Probe:
    """The probe whose ridge, of three, ranks dev's steps best."""
    n = len(sets.train)
    tried = [Probe.fit(features[:n], sets.train, ridge) for ridge in (1e-3, 1e-2, 1e-1)]
    return max(tried, key=lambda p: auroc(p(features[n:], sets.dev), wrong(sets.dev)).value)


def areas(scores: Mapping[str, Scores], unseen: str) -> Iterator[Check]:
    """The clauses on AUROC, ours less theirs on the same steps, bootstrapped over problems."""
    for family, s in scores.items():
        where = f"{family}{', unseen' if family == unseen else ''}"
        for theirs in ("token entropy", "perplexity"):
            yield held(f"{where}: AUROC of step errors, head minus {theirs}", s.gain("head", theirs), ">=", 0.05)
        bound = 0.0 if family == unseen else -0.05
        gap = s.gain("head", "step model")
        yield held(f"{where}: AUROC of step errors, head minus fine-tuned step model", gap, ">=", bound)


def pools(s: Scores) -> list[Pool]:
    """Each problem's chains, scored by the product over their steps of the probability of being right."""
    sizes = np.cumsum([len(chain.labels) for chain in s.chains])[:-1]
    by = {name: [-np.logaddexp(0, x).sum() for x in np.split(odds, sizes)] for name, odds in s.by.items()}
    right = np.array([chain.score for chain in s.chains])
    by["oracle"] = right.tolist()
    problems: dict[str, list[int]] = {}
    for i, chain in enumerate(s.chains):
        problems.setdefault(chain.problem, []).append(i)
    return [
        Pool(right[rows], tuple(s.chains[i].answer for i in rows), {n: np.array(x)[rows] for n, x in by.items()})
        for rows in problems.values()
    ]


def best_of(scores: Mapping[str, Scores], unseen: str) -> Iterator[Check]:
    """The clause on best-of-8, on the families it was trained on together and on the one it was not."""
    for where, some in {
        "trained families": [f for f in scores if f != unseen],
        f"{unseen}, unseen": [unseen],
    }.items():
        found = [pool for family in some for pool in pools(scores[family])]
        gap = paired_difference([[p.best("head")] for p in found], [[p.majority()] for p in found])
        yield held(f"{where}: accuracy of best of {SAMPLES} by the head minus majority's", gap, ">=", 0.0)


def costs(engine: Engine, head: Head, sets: Sets) -> Iterator[Check]:
    """What judging takes beyond what writing had computed: the head's products, over those of a pass of the base model
    that reads the chain's tokens once (its question not counted)."""
    ours = theirs = 0.0
    for chain in (chain for chains in sets.tests.values() for chain in chains):
        ends = relative([chain])[0]
        ours += head.module.flops(ends[-1], ends) + head.inside.flops(engine, ends[-1])
        attended = sum(range(1, ends[-1] + 1))
        theirs += engine.flops(ends[-1], attended, heads=0)
    yield Check("FLOPs of judging a step, head over step model", ours / theirs, "<", 0.05)
    yield Check("positions computed again to judge chains just written", reread(engine, head, sets), "==", 0)


def reread(engine: Engine, head: Head, sets: Sets) -> int:
    """Evaluations that the reward pays for on chains whose writing is still in the engine's cache."""
    from anystep.ledger import Ledger, Limit

    chains = [next(iter(chains)) for chains in sets.tests.values()]
    states = states_of(engine, chains)
    engine.cache.trim(0)
    with engine.lock, engine.open(engine.plan([tokens[:-1] for tokens in states.tokens])):
        pass  # as writing leaves it: all but the last token fed
    limit = Limit(Ledger(), "head")
    values = uncertainty_head(engine, head)(states, limit).values
    assert not np.isnan(values).any()
    return limit.used.evaluations


def states_of(engine: Engine, chains: Sequence[Chain]) -> Sequences:
    return Sequences(tuple(c.tokens for c in chains), tuple(c.start for c in chains), engine.tokenizer)


def told(
    engine: Engine,
    sets: Sets,
    head: Head,
    scores: Mapping[str, Scores],
    plain: Mapping[str, str],
    cost: Mapping[str, Any],
    seconds: Mapping[str, float],
    ablations: Ablations,
) -> str:
    """All figures: ranking, choosing, calibration, planted errors, ablations, self-labels and costs."""
    names = list(next(iter(scores.values())).by)
    rank = [[name, *(str(s.area(name)) for s in scores.values())] for name in names]
    wrongs = [f"{len(s.wrong)}, {s.wrong.mean():.2f} wrong" for s in scores.values()]
    lines = [table(["AUROC of step errors", *scores], [["steps", *wrongs], *rank])]
    found = {family: pools(s) for family, s in scores.items()}
    choice: list[list[object]] = [
        ["one sample", *(str(bootstrap_mean([p.right.mean() for p in some])) for some in found.values())],
        [f"majority of {SAMPLES}", *(str(bootstrap_mean([p.majority() for p in some])) for some in found.values())],
    ]
    for name in ("head", "step model", "perplexity", "linear probe", "oracle"):
        choice.append([name, *(str(bootstrap_mean([p.best(name) for p in some])) for some in found.values())])
    lines.append(table([f"accuracy, best of {SAMPLES} by", *scores], choice))
    lines.append(table(["calibration of a step's probability", *scores], calibration(head, scores)))
    lines += [f"Planted errors, {f}:\n{on_planted(engine, head, some)}" for f, some in sets.planted.items()]
    taught = f"AUROC on dev, taught on {ablations.chains} chains"
    lines.append(table([taught, ""], [[name, str(area)] for name, area in ablations.dev.items()]))
    steps = sum(len(s.wrong) for s in scores.values())
    lines.append(
        f"Self-labels: {ablations.same:.3f} of the steps that the model judged itself it labels as the checker does; "
        f"required only from 0.7. Forms of the surprises, chosen on dev: {', '.join(plain.values())}. Head: "
        f"{head.module.parameters_in_all:,} parameters, {head.cost['cpu_seconds']:.0f} s of processor to fit, "
        f"temperature {float(head.module.temperature):.2f}. Step model: {cost['parameters']:,} parameters learned, "
        f"{cost['tokens']:,} tokens in {cost['cpu_seconds']:.0f} s of processor. Processor time a step: head "
        f"{1e3 * seconds['head'] / steps:.2f} ms, step model {1e3 * seconds['step model'] / steps:.2f} ms (question "
        "included). Intervals are 95%, bootstrapped over problems."
    )
    return "\n\n".join(lines)


def calibration(head: Head, scores: Mapping[str, Scores]) -> list[list[object]]:
    """Of the probability that a step is right: ECE before and after the temperature, and errors at .5."""
    rows: dict[str, list[object]] = {n: [n] for n in ("ECE", "ECE before temperature", "wrong passed", "right refused")}
    for s in scores.values():
        odds, right = s.by["head"], 1 - s.wrong
        rows["ECE"].append(str(ece(1 / (1 + np.exp(odds)), right, groups=s.owners)))
        raw = odds * float(head.module.temperature)
        rows["ECE before temperature"].append(str(ece(1 / (1 + np.exp(raw)), right, groups=s.owners)))
        own = np.array(s.owners)
        rows["wrong passed"].append(str(share(odds[s.wrong > 0] <= 0, own[s.wrong > 0])))
        rows["right refused"].append(str(share(odds[s.wrong == 0] > 0, own[s.wrong == 0])))
    return list(rows.values())


def on_planted(engine: Engine, head: Head, chains: Sequence[Chain]) -> str:
    """The verdict of the reward itself, by its last step, on chains of which half end with a false result."""
    reward = uncertainty_head(engine, head, aggregate="last")
    labels = [float(all(chain.labels)) for chain in chains]
    kinds = ["right" if label else "false result" for label in labels]
    problems = [chain.problem for chain in chains]
    return str(verdicts(reward, states_of(engine, chains), labels, groups=kinds, problems=problems))
