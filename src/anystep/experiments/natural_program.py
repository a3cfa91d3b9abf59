"""Row 48: Natural Program's verifier, shown only what a step cites, against the same verifier shown the whole chain;
and a vote among the chains it lets pass, on a tiny reasoner's own mistakes.

Three verifiers learn from the same checks, each check once: shown what the step cites, all before it, or the whole
chain. A fourth is shown what the step cites and learns from as many tokens as the one that is shown the whole chain.
It is the one that the vote asks.

Stated time: two minutes on one quiet core, and eight more the first time, when the reasoner and the verifiers are
trained (then they are kept).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystep import search, verify
from anystep.bench.compare import item_seed
from anystep.calibrate.interval import Interval, bootstrap_mean
from anystep.calibrate.verdicts import Verdicts, judged
from anystep.drive import drive
from anystep.experiments._figures import held, paired, ratio, table
from anystep.experiments._spellings import spelled
from anystep.experiments.check import Check, Result
from anystep.language.train.figures import within_auroc
from anystep.ledger import Cost, Ledger, Limit
from anystep.population import Population
from anystep.process import Floats
from anystep.run import Run
from anystep.solve import process_for
from anystep.tasks.premises import CONTENT, KINDS, Planted, Problem, answer, faults, plant, problems, statements
from anystep.tasks.premises import task as task_of
from anystep.tasks.premises.asking import CONTEXTS, Asked, Context, asked
from anystep.verify.natural_program import NaturalProgram, refused

ROW = 48
THRESHOLD = 0.5
RESAMPLES = 1_000  # of a difference of AUROCs
LONG = "cited, equal tokens"
ARMS: dict[str, Context] = {"cited": "cited", "previous": "previous", "whole": "whole", LONG: "cited"}


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    verifiers: Mapping[str, Any] | None = None,
    reasoner: Any = None,
    planted: int = 400,
    voted: int = 120,
    n: int = 12,
    spellings: int = 5_000,
) -> Result:
    """Check every clause of the row.

    verifiers: engines by the names of `ARMS`, and reasoner: an engine, by default those of `language.train.deduce`.
    planted: held-out problems with planted errors. voted: held-out problems for the votes. n: chains that are verified
    of each.
    """
    began = time.perf_counter()
    engines, writer = _trained(verifiers, reasoner, progress)
    rewards = {arm: verify.natural_program(engines[arm], "min", context=c) for arm, c in ARMS.items()}
    chains = [plant(r, p, errors=r.choice((1, 1, 2))) for r, p in _drawn(planted, seed)]
    checks = [*recovered(chains, spellings, seed), *nowhere(chains, rewards[LONG])]
    read: dict[str, Steps] = {}
    for arm, reward in rewards.items():
        read[arm] = Steps.of(chains, reward)
        progress(f"{arm}: AUROC {read[arm].auroc():.3f}, {read[arm].shown.mean():.0f} tokens a check")
    checks += contexts(read)
    unseen = _level_of_the_reasoner(seed, {chain.problem.key for chain in chains})
    votes = ballots(writer, rewards[LONG], list(islice(unseen, voted)), n, seed)
    checks += voting(votes, n, read[LONG].auroc())
    told = f"{notes(read)}\n\n{vote_notes(votes, n)}"
    return Result("natural_program", ROW, tuple(checks), time.perf_counter() - began, seed, told)


def _trained(verifiers: Mapping[str, Any] | None, reasoner: Any, say: Callable[[str], None]) -> tuple[Any, Any]:
    from anystep.language import load
    from anystep.language.train import deduce

    if verifiers is None:
        recipes = {c: deduce.VerifierRecipe(context=c) for c in CONTEXTS} | {LONG: deduce.LONG}
        verifiers = {arm: load(deduce.verifier(recipe, say)) for arm, recipe in recipes.items()}
    return verifiers, reasoner or load(deduce.reasoner(say=say))


def _drawn(n: int, seed: int) -> Iterator[tuple[Random, Problem]]:
    r = Random(seed)
    for problem in islice(problems("test", seed), n):
        yield r, problem


def recovered(chains: Sequence[Planted], n: int, seed: int) -> Iterator[Check]:
    """The clause on the parser."""
    r, missed = Random(seed), 0
    for _ in range(n):
        step = spelled(r)
        missed += [(s.number, s.cites) for s in statements(step.text)] != [(step.number, step.cites)]
    yield Check(f"steps of {n:,} in odd spellings whose citations are not recovered exactly", missed, "==", 0)
    missed, whole = 0, 0
    for chain in chains:
        for style in ("compact", "natural"):
            found = statements(chain.problem.text(chain.steps, style))
            cited = [cites for cites, _ in chain.steps]
            missed += sum(s.cites != cites for s, cites in zip(found, cited, strict=True))
            whole += len(cited)
    yield Check(f"steps of {whole:,} in planted chains whose citations are not recovered exactly", missed, "==", 0)


def nowhere(chains: Sequence[Planted], reward: NaturalProgram) -> Iterator[Check]:
    """The clause on missing premises."""
    passed, steps = 0, 0
    for chain in chains:
        for style in ("compact", "natural"):
            checks = asked(chain.problem.prompt(style), chain.problem.text(chain.steps, style))
            marked = [check for check, kind in zip(checks, chain.kinds, strict=True) if kind == "nowhere"]
            passed += sum(not refused(check) for check in marked)
            steps += len(marked)
    yield Check(f"steps of {steps:,} citing a missing premise that are not rejected", passed, "==", 0)
    whole = [chain for chain in chains if "nowhere" in chain.kinds]
    scores = [min(reward.probabilities(chain.problem.prompt(), chain.text)) for chain in whole]
    yield Check(f"chains of {len(whole):,} with such a step that score above 0", sum(map(bool, scores)), "==", 0)


@dataclass(frozen=True)
class Steps:
    """All steps of the planted chains as one verifier sees them, each (steps,).

    wrong: 1 where the step is. kind: of its error, "" for none. problem: whose it is. first: whether no step before
    it is wrong. p: the verifier's probability, no rule applied. refused: by the rules. shown: tokens of context a
    check. cost, seconds: of all.
    """

    wrong: Floats
    kind: tuple[str, ...]
    problem: NDArray[np.int64]
    first: NDArray[np.bool_]
    p: Floats
    refused: NDArray[np.bool_]
    shown: Floats
    cost: Cost
    seconds: float

    @classmethod
    def of(cls, chains: Sequence[Planted], reward: NaturalProgram) -> Steps:
        checks: list[Asked] = []
        kinds, owner, first = list[str](), list[int](), list[bool]()
        for i, chain in enumerate(chains):
            checks += asked(chain.problem.prompt(), chain.text, reward.context)
            kinds += [kind or "" for kind in chain.kinds]
            owner += [i] * len(chain.kinds)
            first += [not any(chain.kinds[:at]) for at in range(len(chain.kinds))]
        reward.forget()
        limit, began = Limit(Ledger(), "verifier"), time.process_time()
        p = reward.verdicts(checks, [0] * len(checks), limit)
        seconds = time.process_time() - began
        shown = [len(reward.form.ask(check.lines, check.step)) for check in checks]
        return cls(
            np.array([float(kind != "") for kind in kinds]),
            tuple(kinds),
            np.array(owner),
            np.array(first),
            p,
            np.array([refused(check) for check in checks]),
            np.array(shown, dtype=np.float64),
            limit.used,
            seconds,
        )

    def of_kinds(self, kinds: Sequence[str]) -> NDArray[np.bool_]:
        """The right steps, and the wrong ones of these kinds."""
        return np.array([not kind or kind in kinds for kind in self.kind])

    def auroc(self, kinds: Sequence[str] = KINDS) -> float:
        some = self.of_kinds(kinds)
        return within_auroc(1.0 - self.wrong[some], self.p[some])


def contexts(read: Mapping[str, Steps]) -> Iterator[Check]:
    """The clauses on what a verifier is shown."""
    for arm, equal in (("cited", "examples"), (LONG, "tokens of training")):
        clause = f"AUROC on steps, shown what they cite, minus shown the whole chain, at equal {equal}"
        yield held(clause, above(read[arm], read["whole"]), ">=", 0.05)
    shown = ratio(read["cited"].shown, read["whole"].shown)
    yield held("context tokens a check over those of the whole chain", shown, "<=", 0.5)


def above(ours: Steps, theirs: Steps, seed: int = 0) -> Interval:
    """The difference of two AUROCs on the same steps, bootstrapped over problems."""
    rng, by = np.random.default_rng(seed), [np.flatnonzero(ours.problem == i) for i in range(ours.problem.max() + 1)]
    right = 1.0 - ours.wrong
    differences = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([by[i] for i in rng.integers(0, len(by), len(by))])
        differences.append(within_auroc(right[rows], ours.p[rows]) - within_auroc(right[rows], theirs.p[rows]))
    low, high = np.quantile(differences, [0.025, 0.975])
    return Interval(within_auroc(right, ours.p) - within_auroc(right, theirs.p), float(low), float(high))


@dataclass(frozen=True)
class Ballot:
    """One problem: the chains drawn for it and what they cost, each (chains,).

    right: 1 where the answer is. sound: 1 where every step follows from what it cites, by the exact checker. rules: the
    scores without a model. paid: tokens of each chain. checked: tokens that verifying the first n took; the others have
    no score. faulty, p: of all steps of those, whether it is wrong and the verifier's probability.
    """

    population: Population
    prompt: int
    right: Floats
    sound: Floats
    rules: Floats
    paid: Floats
    checked: int
    faulty: tuple[bool, ...]
    p: tuple[float, ...]

    def chosen(self, decision: Any, k: int, scores: Floats | None = None) -> float:
        """Whether the answer that a decision gives on the first k chains is right."""
        some = self.population.take(np.arange(k))
        some = some if scores is None else some.scored(scores[:k])
        row = decision(some).row
        return 0.0 if row is None else float(self.right[row])

    def tokens(self, k: int, verified: bool) -> float:
        return float(self.prompt + self.paid[:k].sum() + (self.checked if verified else 0))


def _level_of_the_reasoner(seed: int, taken: set[str]) -> Iterator[Problem]:
    """Held-out problems of the level the reasoner was taught, that no planted chain was made from."""
    from anystep.language.train.deduce import ReasonerRecipe

    return (p for p in problems("test", seed + 1, ReasonerRecipe().level) if p.key not in taken)


def ballots(writer: Any, reward: NaturalProgram, drawn: Sequence[Problem], n: int, seed: int) -> list[Ballot]:
    """The reasoner's own chains on each problem: n that are verified, and as many more to spend the same tokens on."""
    tasks = [task_of(problem) for problem in drawn]
    method = search.self_consistency(n=2 * n)
    runs = [Run(process_for(t, writer, temperature=1.0), method, None, item_seed(seed, t.id)) for t in tasks]
    for at in range(0, len(runs), 16):
        drive(*runs[at : at + 16])
    return [_ballot(problem, run, reward, n) for problem, run in zip(drawn, runs, strict=True)]


def _ballot(problem: Problem, run: Run, reward: NaturalProgram, n: int) -> Ballot:
    assert run.answer is not None and run.answer.population is not None
    population, prompt = run.answer.population, problem.prompt()
    states, texts = population.states, run.process.texts(population.states)
    reward.forget()
    used = Limit(Ledger(), "verifier")
    scores = np.full(len(texts), np.nan)
    scores[:n] = reward(states.take(np.arange(n)), used).values
    wrong = [[bool(fault) for fault in faults(prompt, text)] for text in texts]
    return Ballot(
        population.scored(scores),
        len(prompt),
        np.array([float(answer(text) == problem.answer) for text in texts]),
        np.array([float(not any(labels)) for labels in wrong]),
        verify.natural_program(aggregate="min")(states, Limit(Ledger(), "rules")).values,
        np.array([len(out) for out in states.outputs()], dtype=np.float64),
        used.used.tokens,
        tuple(label for labels in wrong[:n] for label in labels),
        tuple(p for text in texts[:n] for p in reward.probabilities(prompt, text)),
    )


def voting(votes: Sequence[Ballot], n: int, auroc: float) -> Iterator[Check]:
    """The clause on votes; the amendment asks for it where the verifier's AUROC is .8 or more."""
    yield Check("AUROC of the verifier, from which on the vote must gain", auroc, ">=", 0.8)
    ours = np.array([b.chosen(search.majority_above(THRESHOLD), n) for b in votes])
    theirs = np.array([b.chosen(search.majority, n) for b in votes])
    yield held(
        f"accuracy of the vote over verified chains of {n} minus majority's of {n}", paired(ours, theirs), ">", 0.0
    )


def notes(read: Mapping[str, Steps]) -> str:
    """Each verifier by kind of error, its calibration and its price; the rules beside them."""
    cited = read[LONG]
    head = ["verifier", "AUROC", *KINDS, "content", "before an error", "context tokens", "paid tokens", "ms"]
    rows: list[list[object]] = []
    for arm, steps in read.items():
        early = within_auroc(1.0 - steps.wrong[steps.first], steps.p[steps.first])
        price = [f"{steps.shown.mean():.1f}", f"{steps.cost.tokens / len(steps.p):.1f}"]
        by_kind = [steps.auroc((kind,)) for kind in KINDS]
        rows.append(
            [
                arm,
                steps.auroc(),
                *by_kind,
                steps.auroc(CONTENT),
                early,
                *price,
                f"{1000 * steps.seconds / len(steps.p):.2f}",
            ]
        )
    learned = verdict("learned", cited, cited.p)
    rules = verdict("rules", cited, np.asarray(~cited.refused, dtype=np.float64))
    both = verdict("both", cited, np.where(cited.refused, 0.0, cited.p))
    passed: list[list[object]] = []
    for name, v in {"learned, alone": learned, "rules, alone": rules, "rules, then learned": both}.items():
        kinds = [f"{100 * v.by_kind[kind][1].value:.1f}%" if kind in v.by_kind else "" for kind in KINDS]
        passed.append([name, share(v.false_positives), *kinds, share(v.false_negatives), str(v.ece)])
    n, wrong = len(cited.p), int(cited.wrong.sum())
    return (
        f"{n:,} steps of {cited.problem.max() + 1:,} held-out chains with one or two planted errors, {wrong:,} steps "
        f"wrong. AUROC on all steps; of each kind of error against right steps; of the first four kinds, which are "
        f"wrong whatever is cited; and on steps up to a chain's first error:\n\n{table(head, rows)}\n\n"
        f"Wrong steps that pass at {THRESHOLD}, by kind, for the verifier of the votes:\n\n"
        f"{table(['verifier', 'pass though wrong', *KINDS, 'fail though right', 'ECE'], passed)}"
    )


def verdict(name: str, steps: Steps, scores: Floats) -> Verdicts:
    return judged(name, scores, 1.0 - steps.wrong, THRESHOLD, list(steps.kind), steps.problem.tolist())


def share(figure: Interval) -> str:
    return f"{100 * figure.value:.1f}% [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"


def vote_notes(votes: Sequence[Ballot], n: int) -> str:
    """The votes at equal chains and at equal tokens, the verifier's included, and what they are made of."""
    above = search.majority_above(THRESHOLD)
    most = len(votes[0].right)
    spent = float(np.mean([b.tokens(n, True) for b in votes]))
    same = max((k for k in range(1, most + 1) if np.mean([b.tokens(k, False) for b in votes]) <= spent), default=1)
    lines: dict[str, tuple[list[float], float]] = {
        "one chain": ([float(b.right[0]) for b in votes], _mean_tokens(votes, 1, False)),
        f"majority of {n}": ([b.chosen(search.majority, n) for b in votes], _mean_tokens(votes, n, False)),
        f"majority of {same}, as many tokens as verified": (
            [b.chosen(search.majority, same) for b in votes],
            _mean_tokens(votes, same, False),
        ),
        f"vote over verified of {n}": ([b.chosen(above, n) for b in votes], _mean_tokens(votes, n, True)),
        f"best of {n} by the least step": ([b.chosen(search.best_reward, n) for b in votes], spent),
        f"rules alone, of {n}": (
            [b.chosen(above, n, b.rules) for b in votes],
            _mean_tokens(votes, n, False),
        ),
        f"oracle: exact checker, of {n}": (
            [b.chosen(above, n, b.sound) for b in votes],
            _mean_tokens(votes, n, False),
        ),
    }
    rows: list[list[object]] = [[name, str(bootstrap_mean(right)), t] for name, (right, t) in lines.items()]
    faulty = np.concatenate([b.faulty for b in votes]).astype(np.float64)
    p = np.concatenate([b.p for b in votes])
    unverified = np.mean([not (b.population.scores[:n] >= THRESHOLD).any() for b in votes])
    passed = np.concatenate([b.sound[:n][b.population.scores[:n] >= THRESHOLD] for b in votes])
    equal = paired(
        np.array(lines[f"vote over verified of {n}"][0]),
        np.array([b.chosen(search.majority, same) for b in votes]),
    )
    return (
        f"{len(votes)} held-out problems, the reasoner's own chains at temperature 1.\n\n"
        f"{table(['decision', 'accuracy', 'tokens'], rows)}\n\nAt equal tokens the vote over verified chains of {n} "
        f"minus majority of {same}: {equal}. No chain of {n} was verified in {100 * unverified:.1f}% of the problems. "
        f"Of the {len(passed):,} chains that passed, {passed.sum():.0f} follow from what they cite throughout. "
        f"AUROC on the reasoner's own {len(p):,} steps, of which {100 * faulty.mean():.1f}% are wrong: "
        f"{within_auroc(1.0 - faulty, p):.3f}."
    )


def _mean_tokens(votes: Sequence[Ballot], k: int, verified: bool) -> float:
    return float(np.mean([b.tokens(k, verified) for b in votes]))
