"""Natural Program: every step is checked against the statements it cites, and against nothing else.

Premises are numbered, a step names those it follows from (`#7. (by #1 #2) Bob has 12 + 4 = 16 apples.`), and a language
model is asked of each step alone whether it follows from those: the probability that it says yes is the step's. What
needs no model is refused before one is asked: a step that cites nothing or what is not there, and an equation with a
number that stands in no cited statement.

Source: Ling et al., "Deductive Verification of Chain-of-Thought Reasoning" (NeurIPS 2023), arXiv 2306.03872.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from torch import Tensor

from anystep import search
from anystep.errors import UsageError
from anystep.language.engine.engine import Engine
from anystep.language.engine.tokenizer import Alphabet, begun
from anystep.language.loading import load
from anystep.language.prefill import opened, portions
from anystep.ledger import Cost, Ledger, Limit
from anystep.procedure import Method
from anystep.process import Floats, Reward, Scored
from anystep.tasks.equations import check_equations, read_chain
from anystep.tasks.numbers import find_numbers
from anystep.tasks.premises import statements
from anystep.tasks.premises.asking import CONTEXTS, Asked, Context, asked, compact

Aggregate = Literal["product", "min"]
_AGGREGATES: dict[str, Callable[[Floats], Any]] = {"product": np.prod, "min": np.min}


@dataclass(frozen=True)
class Form:
    """How a check is put to a model. ask: the statements shown and the step, to text; through the model's chat template
    where it has one. yes, no: texts whose first token is a verdict."""

    name: str
    ask: Callable[[Sequence[str], str], str] = field(repr=False)
    yes: tuple[str, ...]
    no: tuple[str, ...]


def _english(lines: Sequence[str], step: str) -> str:
    told = "\n".join(f"- {line}" for line in lines)
    return (
        "Statements:\n- Kim has 4 cups.\n- Lee has 2 more cups than Kim.\nConclusion: Lee has 4 + 2 = 6 cups.\n"
        "Does the conclusion follow from the statements alone? yes\n\n"
        "Statements:\n- Kim has 4 cups.\n- Lee has 2 more cups than Kim.\nConclusion: Lee has 4 * 2 = 8 cups.\n"
        "Does the conclusion follow from the statements alone? no\n\n"
        f"Statements:\n{told}\nConclusion: {step}\n"
        "Does the conclusion follow from the statements alone? Answer with yes or no."
    )


COMPACT = Form("compact", compact, ("y",), tuple("ronc"))
ENGLISH = Form("english", _english, ("yes", "Yes", " yes", " Yes"), ("no", "No", " no", " No"))
FORMS = {form.name: form for form in (COMPACT, ENGLISH)}


def refused(check: Asked) -> bool:
    """Whether a step fails without a model being asked: it has no number of its own, or one that is taken; it cites
    nothing though it has numbers, or what is not there; or one of its equations computes with a number that stands in
    no cited statement and is no result before it. Words such as `twice` count as their numbers."""
    step, known = check.statement, check.known
    if step.number is None or step.number in known or not known.keys() >= set(step.cites):
        return True
    if not step.cites:
        return bool(find_numbers(step.text)) or not step.text
    told = "\n".join(known[number].text for number in step.cites)
    return not all(read_chain(told, step.text).grounded)


@dataclass(frozen=True)
class NaturalProgram(Reward):
    """The probability that all finished steps follow from what they cite, in [0, 1]; an unbegun chain has `prior`.

    name: the model's. aggregate: the steps' product, or the least of them. votes: the majority of so many sampled
    verdicts, an odd number; its chance is computed, not sampled, so that more votes cost nothing. context: what a check
    shows. premises: numbered ones for every state, where its prompt does not hold them.
    A text that is no numbered step scores 0: what cannot be read is not verified. (The paper's code passes it.)
    """

    name: str
    aggregate: Aggregate = "product"
    votes: int = 1
    context: Context = "cited"
    prior: float = 0.5
    premises: str | None = None
    form: Form = COMPACT
    engine: Any = field(default=None, compare=False, repr=False)

    def __call__(self, states: Any, limit: Limit) -> Scored:
        found = self._checks(states)
        steps = [np.array([0.0 if refused(check) else np.nan for check in checks]) for checks in found]
        # a refused step decides for its chain, and no model is asked
        owners = [(row, i) for row, p in enumerate(steps) if p.all() for i in range(len(p))]
        asked_of = [found[row][i] for row, i in owners]
        for (row, i), p in zip(owners, self.verdicts(asked_of, [row for row, _ in owners], limit), strict=True):
            steps[row][i] = p
        together = _AGGREGATES[self.aggregate]
        values = [self.prior if not len(p) else float(together(p)) if p.all() else 0.0 for p in steps]
        return Scored(np.array(values, dtype=np.float64), limit.used)

    def _checks(self, states: Any) -> list[list[Asked]]:
        """The checks of each state's finished steps."""
        prompts = states.prompts() if self.premises is None else (self.premises,) * len(states)
        return [list(asked(p, finished(t), self.context)) for p, t in zip(prompts, states.texts(), strict=True)]

    def probabilities(self, prompt: str, chain: str) -> list[float]:
        """Each step's probability, 0 where it is refused; for looking at, and paid by nobody."""
        checks = list(asked(prompt, chain, self.context))
        read = self.verdicts(checks, [0] * len(checks), Limit(Ledger(), self.name))
        return [0.0 if refused(check) else float(p) for check, p in zip(checks, read, strict=True)]

    def verdicts(self, checks: Sequence[Asked], rows: Sequence[int], limit: Limit) -> Floats:
        """The probability that each check is answered with yes, NaN where its row could not pay; no rule is applied."""
        if self.engine is None:
            return np.array([all(e.true for e in check_equations(c.statement.text)) for c in checks], dtype=np.float64)
        values, places = np.full(len(checks), np.nan), np.asarray(rows, dtype=np.int64)
        sequences = [self._tokens(check) for check in checks]
        readout = Cost(flops=self.engine.flops(0, 0, heads=1))
        with self.engine.lock:
            for some in portions(self.engine, sequences):
                part = [sequences[i] for i in some.tolist()]
                paid, session = opened(self.engine, part, limit, readout, rows=places[some])
                if session is not None:
                    with session:
                        values[some[paid]] = self._yes(session.logits())
        return values

    def _tokens(self, check: Asked) -> tuple[int, ...]:
        text, tokenizer = self.form.ask(check.lines, check.step), self.engine.tokenizer
        if tokenizer.template is not None:
            text = tokenizer.chat([{"role": "user", "content": text}])
        try:
            return tuple(begun(tokenizer, text))
        except UsageError as error:
            raise UsageError(
                f"natural_program's verifier reads compact statements such as '#7(#1#2)b=12+4=16', and {error} Use "
                "natural_program('smollm2-135m') for English ones."
            ) from error

    def _yes(self, logits: Tensor) -> Floats:
        """P(yes) among the tokens that are a verdict, (rows, vocab) to (rows,); then that of the votes' majority."""
        first = [sorted({self.engine.tokenizer.encode(t)[0] for t in texts}) for texts in (self.form.yes, self.form.no)]
        yes, no = (logits[:, tokens].logsumexp(-1) for tokens in first)
        p = (yes - no).sigmoid().double().numpy()
        most = range(self.votes // 2 + 1, self.votes + 1)
        return np.asarray(sum(math.comb(self.votes, k) * p**k * (1 - p) ** (self.votes - k) for k in most))

    def forget(self) -> None:
        if self.engine is not None:
            self.engine.cache.trim(0)

    def warm(self, states: Any) -> None:
        self(states, Limit(Ledger(), self.name))


def finished(text: str) -> str:
    """The finished steps of a text: its whole lines, and a last one that ends in a full stop and says something."""
    at = text.rfind("\n") + 1
    tail = text[at:].strip()
    whole = tail.endswith((".", "!", "?")) and any(one.text for one in statements(tail))
    return text if whole else text[:at]


@functools.cache
def _loaded(model: str) -> Engine:
    return load(model)


def natural_program(
    model: str | Engine | None = None,
    aggregate: Aggregate = "product",
    votes: int = 1,
    context: Context = "cited",
    premises: str | None = None,
    form: str | None = None,
) -> NaturalProgram:
    """Natural Program's verifier over the states of a model that numbers its steps and cites what they follow from.

    model: a name or an engine that is asked of each step; without one only the rules judge, which is free: they refuse
    ungrounded steps and false equations, and cannot see a wrong rule. form: "compact" for a model of ChainLM's
    characters, "english" for others; by default by the model's vocabulary. Other options: see `NaturalProgram`.

    Preserves nothing. As a potential (`.log_odds()`) its target is p(x) times the odds of the aggregate.
    Raises UsageError for an option that cannot be meant.
    """
    if aggregate not in _AGGREGATES or context not in CONTEXTS:
        raise UsageError(
            f"natural_program(aggregate={aggregate!r}, context={context!r}): aggregate is one of "
            f"{', '.join(_AGGREGATES)}, context one of {', '.join(CONTEXTS)}."
        )
    if isinstance(votes, bool) or not isinstance(votes, int) or votes < 1 or votes % 2 == 0:
        raise UsageError(f"natural_program(votes={votes!r}): an odd number of verdicts, such as 1 or 3.")
    engine = _loaded(model) if isinstance(model, str) else model
    named = form or ("compact" if engine is None or isinstance(engine.tokenizer, Alphabet) else "english")
    if named not in FORMS:
        raise UsageError(f"natural_program(form={form!r}): one of {', '.join(FORMS)}, or None to choose by the model.")
    name = "natural_program" if engine is None else f"{engine.name}.natural_program"
    return NaturalProgram(name, aggregate, votes, context, premises=premises, form=FORMS[named], engine=engine)


def verified_majority(n: int, reward: Reward, threshold: float = 0.5) -> Method:
    """n independent samples; a majority vote of those that the reward puts at `threshold` or above, of all if none is.

    With `natural_program(..., aggregate="min")` and 0.5 this is unanimity-plurality voting: a chain votes if each of
    its steps is more likely right than not. Preserves nothing of the sample law; in the limit of n the answer is the
    mode among verified samples. Pays n samples and n scores.
    """
    return search.best_of_n(n=n, reward=reward).deciding(search.majority_above(threshold))
