"""Pools of recorded solutions, and what each way to choose among them answers and costs in tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from anystep.language.engine.llama import Llama
from anystep.language.engine.plan import branch
from anystep.language.train.reasoners import translate_prompt
from anystep.language.train.sampler import sample_many
from anystep.language.train.verifiers import Verifier
from anystep.process import Floats
from anystep.tasks.chains import CHAIN_END
from anystep.tasks.quantities import CHAIN, PROGRAM, Quantities, alphabet, extract, judge
from anystep.verify.collaborative_cot_pot import PROGRAM_TOKENS, Runner, agrees, code

LONGEST = 56  # tokens of a chain
SHARP = 16  # chosen on dev among 1, 4, 8, 16 and 32


@dataclass
class Pool:
    """One problem's solutions by one generator, in the order they were drawn; the first n of a pool are a pool.

    right, agree: (n,) whether the answer is right, whether the chain's program comes to it. kinds: the exact checker's
    word for each. scores: (n,) of each verifier. written: programs made without a chain, and
    independent: what they come to.
    """

    problem: Quantities
    chains: tuple[str, ...]
    greedy: float
    right: Floats = field(init=False)
    kinds: tuple[str, ...] = field(init=False)
    answers: tuple[str | None, ...] = field(init=False)
    agree: Floats = field(default_factory=lambda: np.zeros(0))
    programs: dict[str, str] = field(default_factory=dict)
    scores: dict[str, Floats] = field(default_factory=dict)
    written: tuple[str, ...] = ()
    independent: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        found = [judge(self.prompt, chain) for chain in self.chains]
        self.right = np.array([j.right for j in found], dtype=np.float64)
        self.kinds = tuple(j.kind for j in found)
        self.answers = tuple(map(extract, self.chains))

    @property
    def prompt(self) -> str:
        return CHAIN + str(self.problem)

    def done(self, n: int) -> list[int]:
        """Which of the first n ended in a full stop."""
        return [i for i, chain in enumerate(self.chains[:n]) if CHAIN_END in chain]


def drawn(model: Llama, some: Sequence[Quantities], n: int, independent: int, seed: int) -> list[Pool]:
    """Pools of `n` chains at temperature 1, with `independent` programs written from the problem alone."""
    letters, prompts = alphabet(), [CHAIN + str(problem) for problem in some]
    chains = sample_many(model, letters, prompts, n, seed=seed)
    greedy = sample_many(model, letters, prompts, 1, temperature=0.0)
    first = [float(judge(prompt, one).right) for prompt, (one,) in zip(prompts, greedy, strict=True)]
    pools = [Pool(*each) for each in zip(some, map(tuple, chains), first, strict=True)]
    if independent:
        written = sample_many(model, letters, [PROGRAM + str(p) for p in some], independent, seed=seed + 1)
        for pool, programs in zip(pools, written, strict=True):
            pool.written = tuple(programs)
    return pools


def checked(pools: Sequence[Pool], translator: Llama, runner: Runner) -> None:
    """Translates and runs each chain once, and runs the independent programs."""
    distinct = sorted({pool.chains[i] for pool in pools for i in pool.done(len(pool.chains))})
    room = translator.config.context - PROGRAM_TOKENS
    short = [chain for chain in distinct if len(translate_prompt(chain)) <= room]
    told = sample_many(translator, alphabet(), [translate_prompt(c) for c in short], 1, temperature=0.0)
    programs: dict[str, str] = dict.fromkeys(distinct, "") | {
        c: text[:PROGRAM_TOKENS] for c, (text,) in zip(short, told, strict=True)
    }
    every = set(programs.values()) | {program for pool in pools for program in pool.written}
    runnable = sorted({text for program in every if (text := code(program)) is not None})
    printed = dict(zip(runnable, runner(runnable), strict=True))

    def said(program: str) -> str | float | None:
        text = code(program)
        found = None if text is None else printed[text]
        return found if isinstance(found, str) else None  # one that could not be run agrees with nothing here

    for pool in pools:
        pool.programs = {chain: programs[chain] for chain in pool.chains if chain in programs}
        pool.agree = np.array(
            [chain in programs and agrees(chain, said(programs[chain])) for chain in pool.chains], dtype=np.float64
        )
        pool.independent = tuple(_whole(said(program)) for program in pool.written)


def _whole(printed: str | float | None) -> str | None:
    """A printed number as an answer is written."""
    try:
        return None if printed is None else str(int(float(printed))) if float(printed).is_integer() else None
    except (ValueError, OverflowError):
        return None


def ranked(pools: Sequence[Pool], name: str, verifier: Verifier) -> None:
    """Scores every finished chain; others have 0."""
    chains = [[pool.chains[i] for i in pool.done(len(pool.chains))] for pool in pools]
    for pool, values in zip(pools, verifier.scores([p.prompt for p in pools], chains), strict=True):
        pool.scores[name] = np.zeros(len(pool.chains))
        pool.scores[name][pool.done(len(pool.chains))] = values


# --- what an arm answers: 1 where it is right


def chosen(pool: Pool, n: int, values: Floats) -> float:
    """The finished chain of the first n with the highest value."""
    done = pool.done(n)
    return float(pool.right[max(done, key=lambda i: values[i])]) if done else 0.0


def voted(pool: Pool, n: int, weights: Floats) -> float:
    """The answer with the most weight; a tie goes to the first, and without any weight all vote."""
    done = [i for i in pool.done(n) if pool.answers[i] is not None]
    if not any(weights[i] > 0 for i in done):
        weights = np.ones(len(pool.chains))
    totals: dict[str, float] = {}
    for i in done:
        totals[str(pool.answers[i])] = totals.get(str(pool.answers[i]), 0.0) + float(weights[i])
    if not totals:
        return 0.0
    best = max(totals, key=lambda a: totals[a])
    return float(pool.right[next(i for i in done if pool.answers[i] == best)])


def weights(pool: Pool, name: str) -> Floats:
    """A verifier's scores as the weights of votes: a preference verifier's, which are means over tokens and all of a
    size, to the power SHARP."""
    return pool.scores[name] ** (SHARP if name.endswith("preference") else 1)


def gated(pool: Pool, name: str) -> Floats:
    """The collaborative reward: who agrees comes first, then the verifier's score."""
    return (pool.agree + pool.scores[name]) / 2


def unaided(pool: Pool, n: int, m: int, name: str) -> float:
    """The ablation: a chain is kept where one of m independent programs comes to its answer."""
    kept = np.array([a is not None and a in pool.independent[:m] for a in pool.answers], dtype=np.float64)
    return chosen(pool, n, (kept + pool.scores[name]) / 2)


# --- what an arm costs, in the tokens that a ledger counts


def tokens(pool: Pool, n: int, rank: bool, translate: bool) -> int:
    """Prompt and generated tokens of n samples; what is read twice is read once, through prefix caches."""
    total = len(pool.prompt) + sum(map(len, pool.chains[:n]))
    read = {pool.chains[i] for i in pool.done(n)}
    if rank:
        total += positions(pool.prompt + chain for chain in read)
    if translate:
        total += positions(map(translate_prompt, read)) + sum(len(pool.programs[chain]) for chain in read)
    return total


def positions(texts: Iterable[str]) -> int:
    """How many positions an engine computes to read these together with nothing cached."""
    members = [tuple(map(ord, text)) for text in sorted(set(texts))]
    units = branch(members, 0, 0, {tokens: row for row, tokens in enumerate(members)})
    return sum(unit.length for _, unit in units)


def grown(pool: Pool, due: int, rank: bool, translate: bool) -> int:
    """The fewest samples whose cost is at least `due`, or all there are: never fewer tokens than it is compared with,
    while the pool lasts."""
    sizes = range(1, len(pool.chains) + 1)
    return next((n for n in sizes if tokens(pool, n, rank, translate) >= due), len(pool.chains))


Arm = Callable[[Pool], float]


def by_tokens(
    n: int, name: str | None, translate: bool, paid_by: tuple[bool, bool] = (True, True), vote: bool = False
) -> Arm:
    """An arm with as many samples as it takes to have at least the tokens of n samples that are ranked and translated
    (or what `paid_by` says): the choice of verifier `name`, or its weighted vote, or without one a vote, of those that
    agree if it translates."""

    def arm(pool: Pool) -> float:
        m = grown(pool, tokens(pool, n, *paid_by), name is not None, translate)
        if name is not None:
            return voted(pool, m, weights(pool, name)) if vote else chosen(pool, m, pool.scores[name])
        return voted(pool, m, pool.agree if translate else np.ones(len(pool.chains)))

    return arm


def over(pools: Sequence[Pool], arm: Arm) -> Floats:
    """(items,): an arm's answers."""
    return np.array([arm(pool) for pool in pools])
