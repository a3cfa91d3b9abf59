"""Row 168: adaptive prompting on three families of arithmetic, by a ChainLM that reckons in three formats, and the same
table from SmolLM2 on problems of reasoning-gym.

The check of the headline knows no answer and is no calculator: it is the probability that the model itself gave to its
last line, where that line's result passes casting out nines. An exact checker in its place is an upper bound, and
labelled oracle.

Stated time: sixteen minutes on a busy core, and 12 more the first time, when the model is trained (then it is kept).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from anystep import keys, search, verify
from anystep.experiments._equal import Outcomes, no_cheaper, outcomes
from anystep.experiments._figures import held, table
from anystep.experiments.check import Check, Result
from anystep.language.prompt.arithmetic import END, arithmetic_templates
from anystep.language.reprompting import reprompting
from anystep.ledger import Limit
from anystep.procedure import Method
from anystep.process import Process, Reward, Scored, reward
from anystep.run import Run
from anystep.solve import process_for
from anystep.tasks.reasoning_gym import reasoning_gym
from anystep.tasks.reckoning import FAMILIES, FORMATS, MARKS, nines, reckoning
from anystep.tasks.task import Task

ROW = 168
TRIES, THRESHOLD, TEMPERATURE = 6, 0.7, 1.0  # chosen on 300 dev problems
VOTES = ((8, 12, 16, 24, 32, 64), (3, 4, 6, 8, 16), (1, 2, 3, 4, 8))  # of the short, guided and decomposed template
AGAIN = ((16, 32, 64), (8, 16, 32, 64), (TRIES, 8, 12, 16, 32))  # tries of the frozen ones
GYM = {
    "chain_sum": {"min_terms": 2, "max_terms": 4, "min_digits": 1, "max_digits": 2},
    "products": {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 1},
    "basic_arithmetic": {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2},
}


@dataclass(frozen=True)
class Bench:
    """A model on a set of problems. prompts: a problem's three templates. options: those of its processes. families:
    of which the problems are."""

    engine: Any
    tasks: Sequence[Task]
    prompts: Callable[[Task], Sequence[str]]
    check: Reward
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    families: Sequence[str] = FAMILIES

    def process(self, task: Task, form: int = 0, temperature: float | None = None) -> Any:
        asked = replace(task, prompt=self.prompts(task)[form])
        heat = TEMPERATURE if temperature is None else temperature
        return process_for(asked, self.engine, **{**self.options, "temperature": heat})

    def static(self, form: int, n: int = 1, temperature: float | None = None, best: bool = False) -> Outcomes:
        """A vote of n answers under one template, or the one of them whose last line the check thinks best of."""
        method = search.best_of_n(n=n, reward=self.check) if best else search.self_consistency(n=n)
        made: Callable[[Task], Process] = lambda task: self.process(task, form, temperature)  # noqa: E731
        return outcomes(self.engine, self.tasks, method, self.seed, process_of=made)

    def adaptive(
        self,
        check: Callable[[Task], Reward | None] | None = None,
        forms: Sequence[int] = (0, 1, 2),
        tries: int | None = None,
    ) -> Outcomes:
        """The method with some of the templates, with its own check or another."""

        def method(task: Task) -> Method:
            prompts = self.prompts(task)
            templates = reprompting(self.process(task), *(prompts[form] for form in forms))
            judge = self.check if check is None else check(task)
            return search.adaptive_prompt(templates, judge, tries or TRIES, THRESHOLD)

        return outcomes(
            self.engine, self.tasks, method, self.seed, process_of=lambda task: self.process(task, forms[0])
        )


@dataclass(frozen=True)
class Dealt(Reward):
    """`reward` with its values dealt out again among attempts under one template, by each state's own text: their law
    is kept, what they say of a state is lost. It costs what `reward` costs. values: by prompt's last character."""

    reward: Reward
    values: Mapping[str, tuple[float, ...]] = field(compare=False, repr=False)

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.reward.name}, dealt again"

    def __call__(self, states: Any, limit: Limit) -> Scored:
        scored = self.reward(states, limit)
        told = list(zip(states.prompts(), states.texts(), strict=True))
        u = keys.uniforms(np.array([keys.named(f"dealt:{prompt}{text}") for prompt, text in told], np.uint64))
        some = [self.values[prompt[-1]] for prompt, _ in told]
        dealt = np.array([values[int(u[i] * len(values))] for i, values in enumerate(some)])
        return Scored(np.where(np.isnan(scored.values), np.nan, dealt), scored.cost)

    def forget(self) -> None:
        self.reward.forget()


@dataclass(frozen=True)
class ByTask(Reward):
    """Whether all lines so far are right, by a task's exact checker: an oracle."""

    task: Task

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"exact {self.task.id}"

    def __call__(self, states: Any, limit: Limit) -> Scored:
        assert self.task.steps is not None
        return Scored(np.array([float(all(self.task.steps(text))) for text in states.texts()]), limit.used)


def _nines(states: Any) -> list[bool]:
    return [nines(prompt, text) for prompt, text in zip(states.prompts(), states.texts(), strict=True)]


RULE = reward(_nines, "nines")


def attempts(run: Run) -> list[tuple[int, float]]:
    """The template and the check's value of every attempt of a run, in order."""
    family, found = run.books.family, list[tuple[int, float]]()
    values = {node: value for (_, node), value in family.scores.items()}
    for node, by in enumerate(family.by):
        if by == run.process.name and family.parents[node]:
            told = family.by[family.parents[node][0]]
            found.append((int(told.rpartition(" ")[2]) - 1, values.get(node, np.nan)))
    return found


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    model: Any = None,
    problems: int = 750,
    split: str = "test",
    gym_model: Any = "smollm2-135m",
    items: int = 10,
) -> Result:
    """Check every clause of the row. model: an engine, by default that of `language.train.formats`. problems: held-out
    ones. gym_model: an engine or a name, None to leave its table out; items: of each of three datasets of
    reasoning-gym."""
    from anystep.language import load
    from anystep.language.train.formats import formats

    began = time.perf_counter()
    engine = model or load(formats(say=progress))
    check = verify.cast_out(engine)
    tasks = reckoning(problems, split, seed)
    bench = Bench(engine, tasks, lambda task: [f"{task.prompt}{MARKS[form]}" for form in FORMATS], check, seed)
    rows = list[list[object]]()
    checks = list(headline(bench, rows, progress))
    told = [f"{problems} held-out problems of three families at temperature {TEMPERATURE}.\n\n{_shown(rows)}"]
    if gym_model is not None:
        asked = load(gym_model) if isinstance(gym_model, str) else gym_model
        gym_rows = list[list[object]]()
        checks.append(gym(asked, items, seed, gym_rows, progress))
        names = f"{asked.name}, {items} problems of each of three datasets, temperature {TEMPERATURE}."
        told.append(f"{names}\n\n{_shown(gym_rows, GYM)}")
    return Result("adaptive_prompt", ROW, tuple(checks), time.perf_counter() - began, seed, "\n\n".join(told))


def _shown(rows: list[list[object]], families: Iterable[str] = FAMILIES) -> str:
    return table(["method", "n", "accuracy", "tokens", *families], rows)


def _row(bench: Bench, name: str, n: int, found: Outcomes, progress: Callable[[str], None]) -> list[object]:
    progress(f"{name} n={n}: {found.accuracy} at {found.cost:.0f} tokens")
    names = np.array([task.family for task in bench.tasks])
    each = [found.right[names == family] for family in bench.families]
    return [name, n, str(found.accuracy), round(found.cost), *(float(r.mean()) if len(r) else "" for r in each)]


def statics(
    bench: Bench, tokens: float, rows: list[list[object]], progress: Callable[[str], None]
) -> dict[str, tuple[Outcomes, Outcomes, int]]:
    """For every template its likeliest answer, and the smallest vote that spends no fewer tokens."""
    found: dict[str, tuple[Outcomes, Outcomes, int]] = {}
    for form, name in enumerate(FORMATS):
        greedy = bench.static(form, temperature=0.0)
        n, vote = no_cheaper(lambda n, form=form: bench.static(form, n), tokens, VOTES[form])  # type: ignore[misc]
        rows += [
            _row(bench, f"static {name}, greedy", 1, greedy, progress),
            _row(bench, f"static {name}, vote", n, vote, progress),
        ]
        found[name] = (greedy, vote, n)
    return found


def headline(bench: Bench, rows: list[list[object]], progress: Callable[[str], None]) -> Iterator[Check]:
    """The clauses on ChainLM."""
    ours = bench.adaptive()
    rows.append(_row(bench, "adaptive_prompt", TRIES, ours, progress))
    static = statics(bench, ours.cost, rows, progress)
    for name, (greedy, vote, n) in static.items():
        cot = ", static chain-of-thought" if name == "guided" else ""
        yield held(f"minus the vote of {n} {name} answers{cot}, at no fewer tokens", ours.over(vote), ">", 0.0)
        yield Check(f"its tokens over those of that vote ({name})", ours.cost / vote.cost, "<=", 1.0)
        yield held(f"minus one greedy {name} answer{cot}", ours.over(greedy), ">", 0.0)
    n, best = no_cheaper(lambda n: bench.static(2, n, best=True), ours.cost, VOTES[2])
    rows.append(_row(bench, "static decomposed, best by the check", n, best, progress))
    yield from ablations(bench, ours, rows, progress)
    first = [(tried[0][1] >= THRESHOLD, {form for form, _ in tried}) for tried in map(attempts, ours.runs)]
    yield Check("items that pass the first check", sum(passed for passed, _ in first), ">", 0)
    left = sum(passed and forms != {0} for passed, forms in first)
    yield Check("of these, items that leave the short template", left, "==", 0)
    halves: dict[str, Callable[[Task], Reward]] = {
        "rule alone": lambda task: RULE,
        "probability alone": lambda task: verify.line_probability(bench.engine),
        "exact check (oracle)": ByTask,
    }
    for name, check in halves.items():
        rows.append(_row(bench, f"adaptive_prompt, {name}", TRIES, bench.adaptive(check=check), progress))


def ablations(
    bench: Bench, ours: Outcomes, rows: list[list[object]], progress: Callable[[str], None]
) -> Iterator[Check]:
    """The clauses on what is taken away: the change of templates, and the validation."""
    for form, name in enumerate(FORMATS):
        n, frozen = no_cheaper(lambda n, form=form: bench.adaptive(forms=(form,), tries=n), ours.cost, AGAIN[form])  # type: ignore[misc]
        rows.append(_row(bench, f"ablation, frozen at {name}", n, frozen, progress))
        yield held(
            f"ablation: minus the template frozen at {name}, up to {n} tries a step", ours.over(frozen), ">", 0.0
        )
    unchecked = bench.adaptive(check=lambda task: None)
    rows.append(_row(bench, "ablation, no validation", 1, unchecked, progress))
    yield held("ablation: minus no validation", ours.over(unchecked), ">", 0.0)
    values = defaultdict[str, list[float]](list)
    for form, value in (each for run in ours.runs for each in attempts(run)):
        values[MARKS[FORMATS[form]]].append(value)
    dealt = Dealt(bench.check, {mark: tuple(some) for mark, some in values.items()})
    blind = bench.adaptive(check=lambda task: dealt)
    rows.append(_row(bench, "ablation, verdicts dealt at random", TRIES, blind, progress))
    yield held("ablation: minus verdicts dealt at random", ours.over(blind), ">", 0.0)


def gym(engine: Any, items: int, seed: int, rows: list[list[object]], progress: Callable[[str], None]) -> Check:
    """The same table from a general model; its check is a calculator, which sees the equations of a line alone."""
    found = [task for name, config in GYM.items() for task in reasoning_gym(name, items, seed=seed, **config)]
    tasks = [replace(task, score=lambda text, task=task: float(task.score(text) == 1)) for task in found]  # type: ignore[misc]
    options = {"unit": "step", "stop": "\n", "end": (END,), "max_tokens": 120, "chat": False}
    prompts: Callable[[Task], Sequence[str]] = lambda task: arithmetic_templates(str(task.prompt))  # noqa: E731
    bench = Bench(
        engine, tasks, prompts, verify.step_arithmetic(), seed, options, [f"reasoning-gym/{name}" for name in GYM]
    )
    ours = bench.adaptive()
    rows.append(_row(bench, "adaptive_prompt", TRIES, ours, progress))
    statics(bench, ours.cost, rows, progress)
    for form, name in enumerate(FORMATS):
        rows.append(_row(bench, f"ablation, frozen at {name}", TRIES, bench.adaptive(forms=(form,)), progress))
    rows.append(_row(bench, "ablation, no validation", 1, bench.adaptive(check=lambda task: None), progress))
    return Check("methods in the table of reasoning-gym", len(rows), ">=", 11)
