"""A small and a large process take turns on the same states: exact laws, exact extremes, and what the ledger says.

Law tests are chi-square at a false-alarm rate of 1e-6; seeds are fixed.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from anystep import Budget, Process, Run, UsageError, drive, reward, search
from anystep.language import LanguageProcess
from anystep.language.engine.engine import Engine
from anystep.ledger import FREE
from anystep.procedure import Exploring, Method, procedure, start, step
from anystep.search import decide
from anystep.testing import assert_law, check_reward, counted_torch
from anystep.testing.oracles import EnumerableLM
from anystep.testing.oracles.language import Tokens
from anystep.verify import glimpse
from models import tiny_engine

SMALL, LARGE = EnumerableLM(seed=1, length=4, name="small"), EnumerableLM(seed=2, length=4, name="large")


@procedure(decide=decide.majority)
def alone(n: int, by: Any = None) -> Exploring:
    """One process, step by step."""
    population = yield from start(n)
    while population.live.any():
        population = yield from step(population, by=by)
    return population


def entropies(states: Any) -> np.ndarray:
    """Of the small model's next token, 0 where there is none."""
    live = SMALL.status(states) == 0
    p = SMALL.forward(SMALL.contexts(states.take(np.flatnonzero(live))))
    found = np.zeros(len(states))
    found[live] = -(p * np.log(p)).sum(-1)
    return found


def sums(states: Any) -> np.ndarray:
    """How many of a state's tokens are 2: what the draft router below looks at."""
    return np.array([x.count(2) for x in states.tuples()], dtype=np.float64)


GLIMPSE, TWOS = reward(entropies, "entropies", (0.0, math.log(3))), reward(sums, "twos", (0.0, 4.0))
MIDDLE = 0.9


def chance(model: EnumerableLM, prefix: Tokens) -> dict[int, Fraction]:
    row = model.numerators[model.number(prefix)].tolist()
    return {token: Fraction(weight, sum(row)) for token, weight in enumerate(row)}


def law(conditional: Any, prefix: Tokens = ()) -> dict[Tokens, Fraction]:
    """Every output's probability where the next token's law is `conditional(prefix)`."""
    if prefix and (prefix[-1] == 0 or len(prefix) == SMALL.length):
        return {prefix: Fraction(1)}
    found: dict[Tokens, Fraction] = {}
    for token, p in conditional(prefix).items():
        found |= {x: p * q for x, q in law(conditional, (*prefix, token)).items()}
    return found


def glimpsed(prefix: Tokens) -> dict[int, Fraction]:
    p = np.array([float(x) for x in chance(SMALL, prefix).values()])
    return chance(LARGE if -(p * np.log(p)).sum() > MIDDLE else SMALL, prefix)


def drafted(prefix: Tokens) -> dict[int, Fraction]:
    """A drafted 2 is dropped where another stands before it, and the large model draws in its place."""
    drafts, again = chance(SMALL, prefix), chance(LARGE, prefix)
    dropped = drafts[2] if 2 in prefix else Fraction(0)
    return {t: (p if t != 2 or 2 not in prefix else Fraction(0)) + dropped * again[t] for t, p in drafts.items()}


def drafting_law() -> dict[Tokens, Fraction]:
    """A state with two 2s stays above the threshold, so whatever is drafted behind it is dropped too."""

    def conditional(prefix: Tokens) -> dict[int, Fraction]:
        return chance(LARGE, prefix) if prefix.count(2) > 1 else drafted(prefix)

    return law(conditional)


ROUTERS = {
    "glimpse": (search.glimp_router(LARGE, GLIMPSE, MIDDLE, n=6_000), law(glimpsed)),
    "draft": (search.draft_router(LARGE, TWOS, 1.0, n=6_000), drafting_law()),
}


@pytest.mark.parametrize("name", ROUTERS)
def test_the_routed_law_is_the_one_enumerated(name: str) -> None:
    method, exact = ROUTERS[name]
    (answer,) = drive(Run(SMALL, method))
    assert answer.population is not None and answer.population.answers is not None
    assert_law(answer.population.answers, exact)
    for one in (SMALL, LARGE):
        with pytest.raises(AssertionError):
            assert_law(answer.population.answers, one.outputs)


def routed(threshold: float) -> dict[str, Method]:
    return {
        "glimpse": search.glimp_router(LARGE, GLIMPSE, threshold, n=50),
        "draft": search.draft_router(LARGE, TWOS, threshold, n=50),
    }


@pytest.mark.parametrize("name", ROUTERS)
@pytest.mark.parametrize("threshold,by", [(math.inf, SMALL), (-1.0, LARGE)])
def test_the_extremes_are_each_model_alone(name: str, threshold: float, by: Process) -> None:
    """Equal seeds, equal tokens and equal bills, whether the model alone runs or steps the other's states."""
    run = Run(SMALL, routed(threshold)[name])
    (answer,) = drive(run)
    assert answer.population is not None
    for process, maker in ((by, None), (SMALL, by)):
        other = Run(process, alone(50, maker))
        (whole,) = drive(other)
        assert whole.population is not None
        assert answer.population.answers == whole.population.answers
        assert run.spent.same(other.spent)


def test_a_concluding_process_writes_behind_every_end() -> None:
    width = EnumerableLM(seed=1, length=4, name="small")

    class Appends(EnumerableLM):
        def step(self, states: Any, keys: Any, limit: Any, until: Any) -> Any:
            seen.append(len(states))
            return super().step(states.take(np.arange(len(states))), keys, limit, until)

    seen: list[int] = []
    last = Appends(seed=2, length=5, name="last")
    longer = EnumerableLM(seed=1, length=5, name="small")
    drive(Run(longer, search.glimp_router(LARGE, GLIMPSE, math.inf, n=3, concluding=last)))
    assert seen == [3] and width.length == 4


def test_a_router_without_a_number_is_told() -> None:
    with pytest.raises(UsageError, match="inf to hand nothing over"):
        search.glimp_router(LARGE, GLIMPSE, "low")


# language models


def pair() -> tuple[Engine, Engine]:
    small, large = tiny_engine(1, scale=0.5), tiny_engine(2, scale=0.5)
    small.name, large.name = "small", "large"
    return small, large


def process(engine: Engine, prompt: str = "what is 1 + 2", **options: Any) -> LanguageProcess:
    options = {"unit": "token", "max_tokens": 12, "chat": False, "temperature": 1.0} | options
    return LanguageProcess(engine, prompt, **options)


def test_a_glimpse_is_the_exact_entropy_at_temperature_one() -> None:
    small, _ = pair()
    look, p = glimpse(small), process(small, temperature=0.3, top_p=0.5)
    run = Run(p, search.sample(n=3))
    (answer,) = drive(run)
    assert answer.population is not None
    states = answer.population.states
    scored = look(states, limit_of(run))
    for tokens, value in zip(states.tokens, scored.values.tolist(), strict=True):
        (logs,) = small.forward(_tensor(tokens))[:, -1].double().log_softmax(-1)
        assert value == pytest.approx(float(-(logs.exp() * logs).sum()), abs=1e-4)
    one = glimpse(small, of="margin")(states, limit_of(run)).values
    assert ((one >= 0) & (one <= 1)).all() and not np.allclose(one, scored.values)


def _tensor(tokens: Any) -> Any:
    import torch

    return torch.tensor([tokens])


def limit_of(run: Run) -> Any:
    from anystep.ledger import Ledger, Limit

    return Limit(Ledger(), "glimpse")


@pytest.mark.parametrize("kept", [math.inf, 2.0, 0.0])
def test_a_glimpse_keeps_the_laws_of_rewards(kept: float) -> None:
    small, _ = pair()
    look = glimpse(small).dropping(kept)  # type: ignore[attr-defined]
    p = process(small)
    (answer,) = drive(Run(p, search.sample(n=3)))
    assert answer.population is not None
    small.cache.trim(0)
    check_reward(look, answer.population.states, lambda: counted_torch(small.model))


def test_one_small_token_is_wasted_a_handed_step_and_every_position_is_on_the_ledger() -> None:
    small, large = pair()
    look = glimpse(small)
    for threshold in (1.0, 2.0, 2.6):
        for engine in (small, large):
            engine.cache.trim(0)
        run = Run(process(small), search.glimp_router(process(large), look, threshold, n=4), seed=3)
        with counted_torch(small.model) as work, counted_torch(large.model) as more:
            drive(run)
        handed = sum(by == "large" for by in run.books.family.by)
        paid = {name: run.ledger.by.get(name, FREE) for name in ("small", "large", "small-glimpse")}
        assert paid["small-glimpse"].generated == handed
        assert run.spent.evaluations == work.evaluations + more.evaluations
        outputs = [len(out) for out in run.answer.population.states.outputs()]  # type: ignore[union-attr]
        assert paid["small"].generated + paid["large"].generated == sum(outputs)


def test_what_another_wrote_is_read_as_a_prompt_once() -> None:
    """Every token of a finished state was drawn once, and read once as a prompt by each model that did not draw it, up
    to where it last wrote or looked."""
    small, large = pair()
    run = Run(process(small), search.glimp_router(process(large), glimpse(small), 2.0), seed=5)
    (answer,) = drive(run)
    assert answer.population is not None
    (tokens,), (start,) = answer.population.states.tokens, answer.population.states.starts
    (told,) = answer.population.states.writers
    assert {name for name, _ in told} == {"small", "large"}
    edges = [*(at for _, at in told), len(tokens)]
    wrote = {name: [] for name in ("small", "large")}  # type: ignore[var-annotated]
    for (name, at), end in zip(told, edges[1:], strict=True):
        wrote[name].append((at, end))
    last_look = len(tokens) - 1
    by_large = sum(end - at for at, end in wrote["large"] if end <= last_look)
    paid = run.ledger.by
    assert paid["small"].prompt + paid["small-glimpse"].prompt == start + by_large
    by_small = sum(end - at for at, end in wrote["small"] if end <= max(at for at, _ in wrote["large"]))
    assert paid["large"].prompt == start + by_small


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_language_extremes_are_each_model_alone(temperature: float) -> None:
    small, large = pair()
    for threshold, engine in ((math.inf, small), (-1.0, large)):
        for each in (small, large):
            each.cache.trim(0)
        p = process(small, temperature=temperature)
        run = Run(p, search.glimp_router(process(large, temperature=temperature), glimpse(small), threshold, n=2))
        (answer,) = drive(run)
        engine.cache.trim(0)
        whole = search.sample(n=2) if temperature == 0 else alone(2)
        other = Run(process(engine, temperature=temperature), whole)
        (said,) = drive(other)
        assert answer.population is not None and said.population is not None
        assert answer.population.states.tokens == said.population.states.tokens
        assert run.spent.tokens == other.spent.tokens


def test_states_remember_their_writers_through_a_journal() -> None:
    small, large = pair()
    p = process(small)
    (answer,) = drive(Run(p, search.glimp_router(process(large), glimpse(small), 2.0, n=3)))
    assert answer.population is not None
    states = answer.population.states
    assert p.load(p.dump(states)).writers == states.writers
    assert states.take(np.array([1])).join(states).writers == (states.writers[1], *states.writers)
    record = p.dump(states).replace(b'"small"', b"7")
    with pytest.raises(ValueError, match="writers"):
        p.load(record)


def test_a_router_stops_within_its_budget() -> None:
    small, large = pair()
    for tokens in (5, 20, 40):
        run = Run(process(small), search.glimp_router(process(large), glimpse(small), 2.0, n=2), Budget(tokens=tokens))
        drive(run)
        assert run.spent.tokens <= tokens


def test_states_of_another_vocabulary_are_refused() -> None:
    small, _ = pair()

    class Other:
        tokens = ((1,),)

        def __len__(self) -> int:
            return 1

    with pytest.raises(UsageError, match="none of its"):
        glimpse(small)(Other(), limit_of(None))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="entropy, margin"):
        glimpse(small, of="surprise")
