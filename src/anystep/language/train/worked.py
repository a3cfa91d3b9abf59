"""Chains that a model wrote, cut into steps, with a checker's label for each: what a step verifier is trained on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from anystep import search
from anystep.drive import drive
from anystep.errors import UsageError
from anystep.kept import cache_folder
from anystep.language.engine.engine import Engine
from anystep.language.engine.tokenizer import Tokenizer
from anystep.language.process import LanguageProcess
from anystep.run import Run
from anystep.tasks.chains import FAMILIES, chains
from anystep.tasks.lines import lines
from anystep.tasks.task import Task

Judge = Callable[[str], Sequence[bool]]


@dataclass(frozen=True)
class Chain:
    """A prompt and what was written: `tokens`, from `start` on written; `ends[i]` is one past step i's last token.

    labels: whether each step is right, by a checker. problem: which prompts are the same problem. score: of the whole.
    """

    tokens: tuple[int, ...]
    start: int
    ends: tuple[int, ...]
    labels: tuple[bool, ...]
    problem: str
    score: float
    answer: Hashable = None


@dataclass(frozen=True)
class ChainsRecipe:
    """`each` chains of `problems` problems of a family of `tasks.lines` or `tasks.chains`, written by a model in its
    usual form."""

    family: str
    problems: int
    each: int
    split: str = "train"
    model: str = "smollm2-135m"
    seed: int = 0


def step_ends(tokenizer: Tokenizer, tokens: Sequence[int], start: int, stop: str, over: bool = False) -> list[int]:
    """Where the steps of `tokens[start:]` end, one past each's last token.

    A step ends with the token that completes a `stop`, which is where a process cuts; what stands behind the last one
    is a step once the chain is `over`. Stops without text between them end one step.
    """
    ends: list[int] = []
    text, done = "", 0
    stream = tokenizer.stream()
    for i in range(start, len(tokens)):
        text += stream.push(tokens[i])
        at = text.rfind(stop)
        if at >= done and text[done:at].strip():
            ends.append(i + 1)
        done = max(done, at + len(stop)) if at >= 0 else done
    if over and text[done:].strip():
        ends.append(len(tokens))
    return ends


def write(
    engine: Engine, tasks: Sequence[Task], each: int, seed: int = 0, together: int = 32, **options: Any
) -> list[Chain]:
    """`each` samples of every task by `engine`, with the labels of `task.meta["judge"]`, by step, or else of
    `task.steps`, which say whether all is right so far.

    A chain whose checker sees another number of steps than its `stop` makes is left out, as is one without any.
    """
    found = []
    for at in range(0, len(tasks), together):
        runs = [Run(_process(engine, t, options), search.sample(each), None, seed) for t in tasks[at : at + together]]
        for task, run, answer in zip(tasks[at:], runs, drive(*runs), strict=False):
            assert answer.population is not None and isinstance(run.process, LanguageProcess)
            states, process = answer.population.states, run.process
            judge: Judge | None = task.meta.get("judge", task.steps)
            if judge is None:
                raise UsageError(f"write: {task.id} has no step checker; give tasks with `steps`, such as tasks.lines.")
            for tokens, begin, text in zip(states.tokens, states.starts, process.texts(states), strict=True):
                ends, labels = step_ends(engine.tokenizer, tokens, begin, process.stop, over=True), tuple(judge(text))
                if ends and len(ends) == len(labels):
                    answer_text = None if process.extract is None else process.extract(text)
                    found.append(Chain(tokens, begin, tuple(ends), labels, task.id, task.score(text), answer_text))
        engine.cache.trim(0)
    return found


def _process(engine: Engine, task: Task, options: dict[str, Any]) -> LanguageProcess:
    told = {**engine.generation, **task.generation, **options}
    return LanguageProcess(engine, task.prompt, extract=task.extract, **told)


def chains_of(recipe: ChainsRecipe, say: Callable[[str], None] = print) -> list[Chain]:
    """The recipe's chains, written once and then read from the cache folder."""
    from anystep.language.loading import load  # imported late: loading knows the recipes in this folder

    if recipe.family in FAMILIES:
        tasks = chains(recipe.problems, recipe.split, recipe.seed, recipe.family)
    else:
        tasks = lines(recipe.problems, recipe.family, split=recipe.split, seed=recipe.seed)
    told = json.dumps([asdict(recipe), [t.prompt for t in tasks], tasks[0].generation], sort_keys=True)
    name = f"{recipe.model}-{recipe.family}-{recipe.split}-{blake2b(told.encode(), digest_size=6).hexdigest()}"
    path = cache_folder() / "text" / f"{name}.json"
    if not path.exists():
        keep(write(load(recipe.model), tasks, recipe.each, recipe.seed), path)
        say(f"{recipe.family}: {recipe.problems * recipe.each:,} chains of {recipe.model}, kept as {path.name}")
    return read(path)


def keep(chains: Iterable[Chain], path: Path) -> None:
    """Writes chains as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps([asdict(chain) for chain in chains]), encoding="utf-8")
    part.replace(path)


def read(path: Path) -> list[Chain]:
    """What `keep` wrote."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [Chain(**row | {name: tuple(row[name]) for name in ("tokens", "ends", "labels")}) for row in rows]
