"""The one call: names to models, methods and tasks, and an answer within a budget."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from anystep import journal as journals
from anystep.answer import Answer, failure
from anystep.drive import adrive, drive
from anystep.errors import AnystepError, ModelError, UsageError
from anystep.journal import FileJournal
from anystep.ledger import Budget
from anystep.naming import Asks, Choice, Question, named_method
from anystep.procedure import Method
from anystep.process import Process
from anystep.recipe import recipe
from anystep.run import Run
from anystep.tasks.task import Task

DEFAULT_MODEL = "smollm2-135m"
VOTE, PLAIN = "self_consistency(n=8)", "greedy"  # the method where none is named: see default_method


def solve(
    task: Question,
    model: str | Process | Any = DEFAULT_MODEL,
    method: str | Method | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    **options: Any,
) -> Answer:
    """Answer one question with a model, a method and a budget.

    task: a question, chat messages, or a `Task` with its scorer. model: a name that `language.load` takes, a path, a
    Hugging Face id, a server's URL ("http://127.0.0.1:8080/v1#model-name"), an engine, an `Endpoint`, or any `Process`.
    method: a `Method`, or its call as text; where left out, `default_method` says. options: show, watch and reserve of
    `Run`; journal, a path where the run is written as it goes, and gone on with where it is written already; the rest
    go to `process_for`. Raises UsageError for what cannot be meant, AllFailed where every state failed.
    """
    run = run_for(task, model, method, budget, seed, **options)
    with journals.kept(run):
        return drive(run)[0]


async def asolve(
    task: Question,
    model: str | Process | Any = DEFAULT_MODEL,
    method: str | Method | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    **options: Any,
) -> Answer:
    """As `solve`, without blocking the event loop; cancelling the task stops the model at its next unit of work."""
    run = run_for(task, model, method, budget, seed, **options)
    with journals.kept(run):
        return (await adrive(run))[0]


def solve_many(
    tasks: Iterable[Question],
    model: str | Process | Any = DEFAULT_MODEL,
    method: str | Method | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    at_once: int = 32,
    done: Callable[[int, Answer], None] = lambda index, answer: None,
    **options: Any,
) -> list[Answer]:
    """Answer many questions, `at_once` side by side, a budget each; item i draws as `solve` with seed + i does.

    No item's failure touches another: one that could not be answered has an Answer without text, stopped_because
    "failed", with its errors and its cost. What a process, a reward, `show` or `watch` raises is its item's failure
    too; on a local model, where items share their batches, it is that of all items in the batch. done: called with each
    item's index and answer, group by group. Raises UsageError for options that no item of the first group can be run
    with.
    """
    if isinstance(at_once, bool) or not isinstance(at_once, int) or at_once < 1:
        raise UsageError(f"solve_many(at_once={at_once!r}): a whole number, 1 or more, such as 32.")
    if isinstance(tasks, (str, Task)):
        raise UsageError("solve_many(tasks) takes several questions: solve_many(['What is 2 + 2?', 'And 3 + 3?']).")
    if "journal" in options:
        raise UsageError("a journal keeps one run: call solve(task, journal=path) for each of them.")
    model = engine_for(model) if isinstance(model, str) else model
    answers: list[Answer] = []
    waiting = enumerate(tasks)
    while group := list(islice(waiting, at_once)):
        runs: dict[int, Run] = {}
        refused: dict[int, AnystepError] = {}
        for i, task in group:
            try:
                runs[i] = run_for(task, model, method, budget, seed + i, **options)
            except (ModelError, UsageError) as error:
                refused[i] = error
        if len(refused) == len(group) and not answers:
            raise refused[group[0][0]]
        broken: Exception | None = None
        try:
            drive(*runs.values())
        except Exception as error:  # of one run or batch, and it is told as theirs; all others have ended by now
            broken = error
        for i, _ in group:
            answers.append(_concluded(runs[i], broken) if i in runs else failure(str(refused[i])))
            done(i, answers[-1])
    return answers


def _concluded(run: Run, broken: Exception | None) -> Answer:
    """The answer of a run that was driven, whatever became of it."""
    if run.answer is not None:
        return run.answer
    error = run.error or broken
    said = str(error) if isinstance(error, AnystepError) else f"{type(error).__name__}: {error}"
    return failure(" ".join(said.split()), run.spent, dict(run.ledger.by), run.books.family)


def run_for(
    task: Question,
    model: str | Process | Any = DEFAULT_MODEL,
    method: str | Method | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    **options: Any,
) -> Run:
    """The run that `solve` drives, not yet driven."""
    mine = {k: options.pop(k) for k in ("show", "watch", "reserve") if k in options}
    if method is None:
        method = default_method(task, model, options)
    journal = options.pop("journal", None)
    if isinstance(journal, (str, Path)):
        journal = journals.open(journal, recipe(task, model, method, options))
    chosen = named_method(method, task, asks=asks(model)) if isinstance(method, str) else Choice(method)
    if chosen.greedy:
        options.setdefault("temperature", 0.0)
    try:
        process = process_for(task, model, **options)
        _check_prices(process, budget)
        run = Run(process, chosen.method, budget, seed, journal=journal, **mine)
        return journal.resume(run) if isinstance(journal, FileJournal) else run
    except BaseException:
        if isinstance(journal, FileJournal):
            journal.close()
        raise


def asks(model: str | Process | Any) -> Asks:
    """Who a judge is in a run of `model`: the model of a name, or where there is none the run's own."""

    def asked(name: str | None) -> Any:
        own = getattr(model, "engine", getattr(model, "server", None)) if isinstance(model, Process) else model
        if name is None and own is None:
            raise UsageError(f'{model!r} is no language model; name the judge: reward=judge(model="{DEFAULT_MODEL}").')
        found = own if name is None else name
        return engine_for(found) if isinstance(found, str) else found

    return asked


def _check_prices(process: Process, budget: Budget | None) -> None:
    """UsageError for a budget in money on a server whose prices are not known: it would limit nothing."""
    server = getattr(process, "server", None)
    if budget is not None and budget.money is not None and getattr(server, "unpriced", False):
        raise UsageError(
            f"Budget(money={budget.money:g}) needs prices: Endpoint(..., prices=Prices(prompt=0.15, generated=0.60)), "
            "or --prices 0.15,0.60."
        )


def default_method(task: Question, model: str | Process | Any = DEFAULT_MODEL, options: Any = ()) -> str:
    """A vote of 8 samples where answers can be told from texts: by a task, an `extract` option or a process of one's
    own. Else greedy, for whole texts hardly ever agree, and their vote would be the first sample."""
    votes = isinstance(task, Task) or isinstance(model, Process) or "extract" in options
    return VOTE if votes else PLAIN


def process_for(task: Question, model: str | Process | Any = DEFAULT_MODEL, **options: Any) -> Process:
    """The process that answers `task` with `model`. options are those of `language.LanguageProcess`, or on a server of
    `language.endpoint.EndpointProcess`; where they say nothing, the task's own `generation` options stand, and then the
    model's. speculate: "lookahead", or a drafter of `language.accelerate`: the same answer in fewer passes where it
    quotes its question or repeats itself."""
    if isinstance(model, Process):
        if options:
            raise UsageError(
                f"solve(model={model!r}): a process is already made; give {_call(options)} where you make it."
            )
        return model
    engine = engine_for(model) if isinstance(model, str) else model
    make = _process_class(engine)
    if make is None:
        raise UsageError(
            f"solve(model={model!r}): give a name such as {DEFAULT_MODEL!r}, a URL, an engine, or a Process."
        )
    prompt: Any = task
    if isinstance(task, Task):
        options = {**task.generation, "extract": task.extract, **options}
        prompt = task.prompt
    options = {**engine.generation, **options}
    drafter = _drafter(options.pop("speculate", None), engine, make)
    accepted = inspect.signature(make).parameters
    for name in options:
        if name not in accepted:
            meant = difflib.get_close_matches(name, accepted, n=1) or ["temperature"]
            raise UsageError(f"no option {name!r}: did you mean solve(..., {meant[0]}=...)?")
    process = make(engine, prompt, **options)
    if drafter is None:
        return process
    from anystep.language.accelerate import speculate

    return speculate(process, drafter)


def _drafter(named: Any, engine: Any, make: Any) -> Any:
    """What `speculate` means, None for nothing; UsageError for another name, or where the model is on a server."""
    if named is None:
        return None
    from anystep.language import LanguageProcess

    if make is not LanguageProcess:
        raise UsageError(f"speculate={named!r} is for a model that runs here; leave it out for {engine!r}.")
    if isinstance(named, str) and named != "lookahead":
        raise UsageError(f"speculate={named!r}: 'lookahead', or a drafter of anystep.language.accelerate.")
    return _lookahead() if isinstance(named, str) else named


@functools.cache
def _lookahead() -> Any:
    """One for all, so that runs share batches; it remembers nothing from one row to the next."""
    from anystep.language.accelerate import TrieLookahead

    return TrieLookahead(remember=False)


def _process_class(engine: Any) -> Callable[..., Process] | None:
    """The class that makes a process of this engine; a server's needs no torch, whose import takes seconds."""
    from anystep.language.endpoint import Endpoint, EndpointProcess

    if isinstance(engine, Endpoint):
        return EndpointProcess
    from anystep.language import LanguageProcess
    from anystep.language.engine.engine import Engine

    return LanguageProcess if isinstance(engine, Engine) else None


def engine_for(model: str, before: Callable[[], object] = lambda: None) -> Any:
    """The engine of a model name, loaded once a process however it is spelled, or the endpoint of a server's URL.

    before: called first where the model runs in this process, such as `anystep.language.threads.settle`.
    """
    if not model.startswith(("http://", "https://")):
        before()
    return _loaded(model)


@functools.cache
def _loaded(model: str) -> Any:
    if model.startswith(("http://", "https://")):
        from anystep.language.endpoint import Endpoint

        return Endpoint(model)
    from anystep.language import load

    return load(model)


def _call(options: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v!r}" for k, v in options.items())
