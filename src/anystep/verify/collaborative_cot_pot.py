"""Is a chain right? A verifier that learned from several models' mistakes ranks it, and a program checks it.

A translator writes each chain as a program, which runs in the sandbox: where the program's value is not the chain's, an
equation was false, and the chain comes behind all whose program agrees. A program made from a chain repeats its plan,
so wrong plans are left to the ranker, whose own weakness are the equations.

Source: Liang et al., "Improving LLM Reasoning through Scaling Inference Computation with Collaborative Verification"
(2024), arXiv 2410.05318 (CoTnPoT).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from anystep.errors import UsageError
from anystep.language.engine.engine import Engine
from anystep.language.engine.tokenizer import Alphabet
from anystep.language.prefill import opened, portions, read_each
from anystep.language.train.reasoners import BASE, GENERATORS, TRANSLATOR, Reasoner, reasoner_card, translate_prompt
from anystep.language.train.verifiers import Training, Verifier, verifier, verifier_card
from anystep.ledger import Cost, JointLimit, Ledger, Limit, Rows
from anystep.process import Floats, Reward, Scored
from anystep.tasks.chains import CHAIN_END
from anystep.verify.chain_steps import finished

# Programs to what each printed: None where it failed, NaN where it could not be run, which is not its fault.
Runner = Callable[[Sequence[str]], Sequence[str | float | None]]
SHIPPED = Training("preference", ("B", "C"))  # A is left as a reasoner that it has not seen
KEPT = 100_000  # verdicts an Agreement remembers
PROGRAM_TOKENS = 48
_STATED = re.compile(r"=(\d+)\.?\s*$")
_PLAIN = re.compile(r"([a-z]=([a-z]|\d{1,9})[-+*/]([a-z]|\d{1,9})\n){1,9}print\([a-z]\)")
TOGETHER = 100  # plain programs a process
_TOGETHER = """for program in {0!r}:
    try:
        exec(program, {{}})
    except Exception:
        print()
"""
_ASSIGNED = re.compile(r"([a-z])=")


@dataclass(frozen=True)
class Agreement(Reward):
    """1 where the program that the translator makes of a chain's finished steps comes to the chain's value, else 0.

    Nothing about the problem is read: a wrong plan whose equations hold gets 1. A chain whose program fails gets 0, one
    whose program could not be run NaN, one that is not begun 0.5. Translating is greedy, and paid in the translator's
    tokens; running a program is one call. What was found for a chain is remembered, and then free, until `forget`.
    """

    name: str = "agreement"
    translator: Any = field(default=None, compare=False, repr=False)
    runner: Any = field(default=None, compare=False, repr=False)
    known: dict[str, float] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, states: Any, limit: Limit) -> Scored:
        chains = [finished(text) for text in states.texts()]
        owners = limit.owner.tolist() if isinstance(limit, JointLimit) else [0] * len(chains)
        new: dict[tuple[int, str], int] = {}  # the row that pays for a chain, in each run that has it
        for row, chain in enumerate(chains):
            if chain and chain not in self.known:
                new.setdefault((owners[row], chain), row)
        if new:
            self._find([chain for _, chain in new], np.array(list(new.values())), limit)
        values = np.array([self.known.get(c, np.nan) if c else 0.5 for c in chains])
        for old in list(self.known)[: max(0, len(self.known) - KEPT)]:
            self.known.pop(old, None)
        return Scored(values, limit.used)

    def _find(self, chains: list[str], rows: Any, limit: Limit) -> None:
        """Remembers the verdicts of those chains that could be paid for."""
        programs = self.translated(chains, rows, limit)
        run = {i: code(program) for i, program in enumerate(programs) if program is not None}
        for i in [i for i, text in run.items() if text is None]:  # nothing to run: it agrees with nothing
            self.known[chains[i]] = 0.0
        some = np.array([i for i, text in run.items() if text is not None], dtype=np.int64)
        some = some[limit.pay(rows[some], each=Cost(calls=1))]
        printed = self.runner([str(run[i]) for i in some.tolist()]) if len(some) else ()
        for i, said in zip(some.tolist(), printed, strict=True):
            if not isinstance(said, float):
                self.known[chains[i]] = float(agrees(chains[i], said))

    def translated(self, chains: Sequence[str], rows: Rows, limit: Limit) -> list[str | None]:
        """The chains' programs, None where the limit refused."""
        engine = self.translator
        asked = [tuple(engine.tokenizer.encode(translate_prompt(chain))) for chain in chains]
        short = np.array([i for i, p in enumerate(asked) if len(p) + PROGRAM_TOKENS <= engine.config.context], np.int64)
        programs: list[str | None] = [""] * len(chains)  # a chain that is too long has no program
        with engine.lock:
            for some in portions(engine, [asked[i] for i in short.tolist()]):
                at = short[some]
                for i, text in zip(at.tolist(), self._written([asked[i] for i in at], rows[at], limit), strict=True):
                    programs[i] = text
        return programs

    def _written(self, asked: list[tuple[int, ...]], rows: Rows, limit: Limit) -> list[str | None]:
        """What the translator writes greedily, a payment for all rows before each pass."""
        engine, told = self.translator, list[str | None]([None] * len(asked))
        first = Cost(generated=1, flops=engine.flops(0, 0, heads=1))
        left, session = opened(engine, asked, limit, first, rows=rows)
        if session is None:
            return told
        with session:
            going = np.arange(len(left))
            outputs: list[list[int]] = [[] for _ in left]
            while len(going):
                drawn = session.logits(going).argmax(-1).numpy()
                for row, token in zip(going.tolist(), drawn.tolist(), strict=True):
                    outputs[row].append(token)
                    told[left[row]] = engine.tokenizer.decode(outputs[row])
                on = np.array([outputs[r][-1] not in engine.tokenizer.ends for r in going.tolist()])
                on &= len(outputs[going[0]]) < PROGRAM_TOKENS
                session.drop(going[~on])
                going, drawn = going[on], drawn[on]
                each, once = engine.feed([len(session.tokens[row]) + 1 for row in going.tolist()])
                paid = limit.pay(rows[left[going]], each, once)
                for row in going[~paid].tolist():
                    told[left[row]] = None
                session.drop(going[~paid])
                going = going[paid]
                session.append(drawn[paid].tolist(), going)
        return told

    def forget(self) -> None:
        self.known.clear()
        self.translator.cache.trim(0)

    def warm(self, states: Any) -> None:
        self(states, Limit(Ledger(), self.name))


@dataclass(frozen=True)
class Ranker(Reward):
    """A trained verifier's score of a chain's finished steps in [0, 1]; 0.5 for a chain that is not begun.

    The geometric mean of its tokens' probabilities (by preference), or the probability that its answer is right (by
    outcome). Read through a prefix cache: what is new is paid as prompt tokens.
    """

    name: str
    engine: Any = field(default=None, compare=False, repr=False)
    judge: Any = field(default=None, compare=False, repr=False)

    def __call__(self, states: Any, limit: Limit) -> Scored:
        values = np.full(len(states), 0.5)
        encode = self.engine.tokenizer.encode
        prompts, chains = states.prompts(), [finished(text) for text in states.texts()]
        rows = np.flatnonzero([bool(chain) for chain in chains])
        if len(rows):
            sequences = [(*encode(prompts[row]), *encode(chains[row])) for row in rows.tolist()]
            values[rows] = self._read(sequences, [len(encode(prompts[row])) for row in rows.tolist()], rows, limit)
        return Scored(values, limit.used)

    def _read(self, sequences: list[tuple[int, ...]], starts: list[int], rows: Any, limit: Limit) -> Floats:
        def read(hidden: Tensor, i: int) -> float:
            return float(self.judge.read(hidden, sequences[i], starts[i]))

        return read_each(self.engine, sequences, rows, limit, read)

    def forget(self) -> None:
        self.engine.cache.trim(0)

    def warm(self, states: Any) -> None:
        self(states, Limit(Ledger(), self.name))


@dataclass(frozen=True)
class CollaborativeCotPot(Reward):
    """Chains whose program agrees before all others, and within either kind by the ranker's score; in [0, 1].

    rest: the share of the range for chains whose program disagrees. With 0.5 the best of n is the ranker's choice among
    those that agree, and among all where none does, as in the paper; with 0 the value is the ranker's score where the
    program agrees and 0 elsewhere, the weight for a vote. A chain that is not begun has 0.5.
    """

    agreement: Any = None
    ranker: Any = None
    rest: float = 0.5
    name: str = "collaborative_cot_pot"

    def __call__(self, states: Any, limit: Limit) -> Scored:
        agreed = self.agreement(states, limit).values
        ranked = self.ranker(states, limit).values
        gated = np.where(agreed == 1, self.rest + (1 - self.rest) * ranked, self.rest * ranked)
        values = np.where(np.isnan(agreed), np.nan, np.where(agreed == 0.5, 0.5, gated))
        return Scored(values, limit.used)

    def forget(self) -> None:
        self.agreement.forget()
        self.ranker.forget()

    def warm(self, states: Any) -> None:
        self.agreement.warm(states)
        self.ranker.warm(states)


def code(program: str) -> str | None:
    """A written program as Python that prints its last variable; None where it assigns none."""
    body, stop, _ = program.partition(CHAIN_END)
    assigned = _ASSIGNED.match(body.rsplit("\n", 1)[-1])
    return f"{body}\nprint({assigned[1]})" if stop and assigned else None


def agrees(chain: str, printed: str | float | None) -> bool:
    """Whether what a program printed is the number that the chain's last step states."""
    stated = _STATED.search(chain)
    try:
        return stated is not None and printed is not None and float(printed) == int(stated[1])
    except ValueError:
        return False


def in_sandbox(programs: Sequence[str]) -> list[str | float | None]:
    """What each program printed in the sandbox: None where it failed, NaN where it could not be run: its worker was
    lost, or the process failed that it shared with others, none of which can have brought that about.

    Plain assignments cannot touch each other, so a hundred of them share a process; any other program has its own.
    """
    from anystep.sandbox import shared

    plain = [i for i, program in enumerate(programs) if _PLAIN.fullmatch(program)]
    shares = [plain[at : at + TOGETHER] for at in range(0, len(plain), TOGETHER)]
    joined, alone = set(plain), sorted(set(range(len(programs))) - set(plain))
    batches = [_TOGETHER.format([programs[i] for i in some]) for some in shares]
    outcomes = shared().run([*batches, *(programs[i] for i in alone)])
    said: list[str | float | None] = [None] * len(programs)
    for some, outcome in zip([*shares, *([i] for i in alone)], outcomes, strict=True):
        if outcome.status == "ok":
            printed = outcome.stdout.split("\n") if len(some) > 1 or some[0] in joined else [outcome.stdout]
            for i, line in zip(some, printed, strict=False):
                said[i] = line.strip() or None
        elif outcome.lost or some[0] in joined:
            for i in some:
                said[i] = math.nan
    return said


def agreement(translator: Engine, runner: Runner = in_sandbox) -> Agreement:
    """Chains against their programs, with a model that writes programs (`language.train.reasoners`)."""
    return Agreement(f"agreement by {Path(translator.name).stem}", translator, runner)


def ranker(judge: Verifier, name: str) -> Ranker:
    """A trained verifier (`language.train.verifiers`) as a reward."""
    judge = judge.requires_grad_(False)
    return Ranker(name, Engine(judge.trunk, Alphabet(judge.alphabet.symbols), name=name), judge)


def collaborative_cot_pot(
    training: Training | None = None,
    rest: float = 0.5,
    reasoners: dict[str, Reasoner] = GENERATORS,
    base: Reasoner = BASE,
    translator: Reasoner = TRANSLATOR,
    runner: Runner = in_sandbox,
) -> CollaborativeCotPot:
    """The filter and the ranker for `tasks.quantities`; what is not trained yet is trained, and then kept.

    training: the verifier's recipe; by default that of the one that ships: by preference, on solutions of the reasoners
    B and C. Preserves nothing; as a potential (`.log_odds()`) the target that results is p(x) times the odds of the
    value at the finished chain.
    Raises UsageError for a `rest` outside [0, 1).
    """
    from anystep.language import load

    if not 0 <= rest < 1:
        raise UsageError(f"collaborative_cot_pot(rest={rest!r}): a share such as 0.5, or 0 for a vote's weights.")
    card = verifier_card(training or SHIPPED, reasoners, base)
    return CollaborativeCotPot(
        agreement(load(reasoner_card(translator)), runner), ranker(verifier(card), card.stem), rest
    )
