"""Row 225: what SmolLM2 accepts of drafts when it looks back at them, on capitals and on two-step word problems.

Drafts are the target's own without four of its thirty layers, five tokens a round, so that they are good and differ in
wording. Capitals ask for one sentence about a country's capital, and are right where it is named. The prompt and the
weight were chosen on other countries, and on word problems of the training split.

Stated time: three minutes on one quiet core.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from anystep import search, tasks
from anystep.calibrate.interval import bootstrap_mean, paired_difference
from anystep.drive import drive
from anystep.experiments._figures import held, ratio, table
from anystep.experiments._skipping import Tally, Watched, skipping
from anystep.experiments.check import Check, Result
from anystep.language.accelerate import (
    DraftModel,
    Follow,
    Thrift,
    Typical,
    Verifier,
    reflective_verification,
    speculate,
)
from anystep.language.accelerate.drafts import Draft
from anystep.language.accelerate.reflective import Reflective
from anystep.language.engine.trees import Tree
from anystep.language.process import LanguageProcess
from anystep.process import Floats
from anystep.run import Run
from anystep.solve import process_for

ROW = 225
WEIGHT = 0.2
PROMPT = (
    "<|im_end|>\n<|im_start|>user\nCheck your last words and write them again, corrected.<|im_end|>\n"
    "<|im_start|>assistant\n"
)
CAPITALS = {
    "Austria": "Vienna",
    "Belgium": "Brussels",
    "Denmark": "Copenhagen",
    "Finland": "Helsinki",
    "Hungary": "Budapest",
    "Ireland": "Dublin",
    "Turkey": "Ankara",
    "Ukraine": "Kyiv",
    "Mexico": "Mexico City",
    "Cuba": "Havana",
    "Peru": "Lima",
    "Chile": "Santiago",
    "Argentina": "Buenos Aires",
    "Kenya": "Nairobi",
    "Thailand": "Bangkok",
    "Vietnam": "Hanoi",
    "Iran": "Tehran",
    "Iraq": "Baghdad",
    "Cameroon": "Yaound",
    "Australia": "Canberra",
}

Ask = tuple[LanguageProcess, Callable[[str], float]]  # a question, and what an answer is worth


@dataclass(frozen=True)
class Arm:
    """How a verifier did on some questions: (questions,) tokens a round, positions evaluated by target and drafter,
    scores; the texts; and the tally. unbooked: positions computed apart from those on ledgers."""

    length: Floats
    evaluations: Floats
    scores: Floats
    texts: tuple[str, ...]
    tally: Tally
    unbooked: int


def capitals(engine: Any, count: int, temperature: float = 0.0) -> list[Ask]:
    def ask(country: str, capital: str) -> Ask:
        words = f"What is the capital of {country}? Say one sentence about it."
        process = LanguageProcess(engine, words, unit="completion", temperature=temperature, max_tokens=32)
        return process, lambda text: float(capital in text)

    return [ask(*pair) for pair in list(CAPITALS.items())[:count]]


def word_problems(engine: Any, count: int, seed: int) -> list[Ask]:
    found = tasks.load("word-problems", count, seed=seed, level=1)
    return [(cast(LanguageProcess, process_for(task, engine, temperature=0.0)), task.score) for task in found]


def tried(asks: Sequence[Ask], drafter: Watched, verifier: Verifier, nodes: int, engines: Sequence[Any]) -> Arm:
    """All questions side by side, `nodes` guesses a round."""
    for engine in engines:
        engine.cache.trim(0)
    before = sum(engine.counters.positions for engine in engines)
    processes = [speculate(process, drafter, verifier, Thrift(fixed=nodes)) for process, _ in asks]
    runs = [Run(process, search.sample(n=1), None, i) for i, process in enumerate(processes)]
    drive(*runs)
    tally = drafter.tally
    texts = tuple(run.answer.text or "" if run.answer is not None else "" for run in runs)
    computed = sum(engine.counters.positions for engine in engines) - before
    return Arm(
        length=np.array([tally.tokens[key] / tally.rounds[key] for key in sorted(tally.rounds)]),
        evaluations=np.array([run.spent.evaluations for run in runs], float),
        scores=np.array([score(text) for (_, score), text in zip(asks, texts, strict=True)]),
        texts=texts,
        tally=tally,
        unbooked=abs(computed - sum(run.spent.evaluations for run in runs)),
    )


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    model: str | Any = "smollm2-135m",
    countries: int = 12,
    problems: int = 8,
    skipped: Sequence[int] = range(12, 16),
    prompt: str = PROMPT,
    weight: float = WEIGHT,
    nodes: int = 5,
) -> Result:
    """Check every clause of the row. skipped: the layers that the drafter leaves out. nodes: guesses a round."""
    from anystep.language import load

    began = time.perf_counter()
    engine = load(model, weights="fp32") if isinstance(model, str) else model
    small = skipping(engine, skipped)
    drafter = DraftModel(small)
    arms: dict[str, Arm] = {}

    def arm(name: str, asks: Sequence[Ask], verifier: Verifier, wrong: float = 0.0) -> Arm:
        arms[name] = tried(asks, Watched(drafter, wrong, seed), verifier, nodes, (engine, small))
        progress(f"{name}: {arms[name].length.mean():.3f} tokens a round, score {arms[name].scores.mean():.3f}")
        return arms[name]

    def look(words: str = prompt, share: float = weight, repeat: int = 4, rule: Verifier | None = None) -> Reflective:
        verifier: Reflective = reflective_verification(engine, words, share, repeat, rule)
        return verifier

    some = capitals(engine, countries)
    checks = [*joint(engine, look(), some[0][0].prompt)]
    exact, zero, ours = arm("exact", some, Follow()), arm("weight 0", some, look(share=0.0)), arm("ours", some, look())
    checks += same(exact, zero)
    checks += longer("capitals", exact, ours)
    arm("no prompt", some, look(words=""))
    arm("no repeated tokens", some, look(repeat=0))
    hard = word_problems(engine, problems, seed)
    checks += longer("word problems", arm("problems, exact", hard, Follow()), arm("problems, ours", hard, look()))
    tallies = {}
    for name, verifier in {"exact": Follow(), "ours": look(), "no prompt": look(words="")}.items():
        tally = arm(f"corrupted, {name}", some, verifier, wrong=0.5).tally
        tallies[name] = tally.taken / max(tally.met, 1)
    clause = "share of corrupted guesses that are accepted, ours minus exact verification's"
    checks.append(Check(clause, tallies["ours"] - tallies["exact"], "<=", 0.02))
    warm = capitals(engine, countries, temperature=0.7)
    relaxed, both = arm("typical", warm, Typical()), arm("typical, ours", warm, look(rule=Typical()))
    clause = "capitals at temperature 0.7: tokens a round, ours under typical acceptance over typical acceptance alone"
    checks.append(held(clause, ratio(both.length, relaxed.length, seed), ">", 1.0))
    unbooked = sum(found.unbooked for found in arms.values())
    checks.append(Check("positions computed, by target and drafter, that no ledger has", unbooked, "==", 0))
    return Result(
        "reflective_verification", ROW, tuple(checks), time.perf_counter() - began, seed, notes(arms, tallies)
    )


@torch.inference_mode()
def joint(engine: Any, verifier: Reflective, prefix: tuple[int, ...]) -> list[Check]:
    """The clause on the joint pass: a draft of two branches, all in one pass with an explicit mask."""
    tokens = prefix[:24]
    tree = Tree((5, 6, 7, 8, 9), (-1, 0, 0, 1, 2))
    shown = verifier.shown(Draft(tree), tokens).tree
    plain, whole = (laid(engine, tokens, each) for each in (tree, shown))
    far = float((plain - whole[: len(plain)]).abs().max())
    return [Check("joint pass: largest difference of a probability from the plain pass's", far, "<=", 1e-5)]


def laid(engine: Any, tokens: tuple[int, ...], tree: Tree) -> torch.Tensor:
    """Next-token probabilities (1 + nodes, vocab) after `tokens` and after each node of a tree behind them."""
    n, size = len(tokens), len(tokens) + len(tree)
    mask = torch.ones(size, size, dtype=torch.bool).tril()
    mask[n:, n:] = torch.from_numpy(tree.lineage)
    positions = torch.tensor([*range(n), *(n + tree.depths).tolist()])
    logits = engine.forward(torch.tensor([[*tokens, *tree.tokens]]), mask[None], positions[None])
    found: torch.Tensor = logits[0, n - 1 :].double().softmax(-1)
    return found


def same(exact: Arm, zero: Arm) -> list[Check]:
    """The clause on weight 0."""
    differ = sum(a != b for a, b in zip(exact.texts, zero.texts, strict=True))
    more = float(np.abs(exact.evaluations - zero.evaluations).sum())
    return [
        Check("weight 0: answers that are not exact verification's", differ, "==", 0),
        Check("weight 0: positions evaluated apart from exact verification's", more, "==", 0),
    ]


def longer(task: str, exact: Arm, ours: Arm) -> list[Check]:
    """The clauses on accepted length and accuracy."""
    return [
        held(f"{task}: tokens a round, ours over exact verification's", ratio(ours.length, exact.length), ">=", 1.1),
        held(
            f"{task}: accuracy, ours minus exact verification's",
            paired_difference(list(ours.scores), list(exact.scores)),
            ">=",
            -0.01,
        ),
    ]


def notes(arms: dict[str, Arm], tallies: dict[str, float]) -> str:
    rows = [
        [
            name,
            str(bootstrap_mean(arm.length)),
            str(bootstrap_mean(arm.scores)),
            float(arm.evaluations.sum() / sum(arm.tally.tokens.values())),
        ]
        for name, arm in arms.items()
    ]
    head = ["drafts and verification", "tokens a round", "accuracy", "positions evaluated a token"]
    taken = ", ".join(f"{name} {share:.3f}" for name, share in tallies.items())
    return f"Weight {WEIGHT}. Share of corrupted guesses accepted: {taken}.\n\n{table(head, rows)}"
