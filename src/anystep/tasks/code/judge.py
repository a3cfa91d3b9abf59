"""Are these programs right? Many at a time, in the sandbox, judged by a parent that tells them nothing.

A candidate's process is sent arguments and sends back values: no expected value, no test and no verdict is ever in it.
What it prints, patches, exits with or says about itself is no part of the judgement.
"""

from __future__ import annotations

import atexit
import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from anystep.errors import AnystepError
from anystep.tasks._draw import digest
from anystep.tasks.code.problem import Checked, Problem
from anystep.tasks.code.relay import harness, relayed
from anystep.tasks.code.values import same, spelled
from anystep.tasks.data.scorers import Unscored
from anystep.tasks.task import Task

if TYPE_CHECKING:
    from anystep.sandbox import Outcome, Sandbox

KEPT = 4_096  # judgements that are remembered
LONGEST = 200  # characters of a value in a vote; what is longer is told by its beginning and a digest

Asked = tuple[Problem, str]  # a problem, and a model's text about it
Judge = Callable[["Sandbox", Problem, str], Any]


def verdicts(asked: Sequence[Asked], box: Sandbox | None = None) -> list[float]:
    """1.0 where a text's program passes every hidden test of its problem, else 0.0.

    NaN, with its reason as `why`, where the sandbox or the tests could not run: never 0 for that.
    """
    return [0.0 if found is None else found for found in _judged(asked, _verdict, box)]


def shares(asked: Sequence[Asked], box: Sandbox | None = None) -> list[float]:
    """The share of the shown examples whose value a text's program returns; 0.0 where there is no program.

    Where a problem shows no value, 1.0 for a program that returns anything on the arguments it shows, or that loads
    where it shows none. NaN where the sandbox could not run.
    """
    found = _judged(asked, _outcomes, box)
    return [_share(problem, outcomes) for (problem, _), outcomes in zip(asked, found, strict=True)]


def behaviours(asked: Sequence[Asked], box: Sandbox | None = None) -> list[str | None]:
    """What each text's program returns on the arguments that its problem shows, in one spelling: programs that behave
    alike there have one key. None where there is no program, or where it returns nothing on any of them. Where a
    problem shows none, programs that load are told apart by what they say."""
    found = _judged(asked, _outcomes, box)
    return [_behaviour(problem, text, outcomes) for (problem, text), outcomes in zip(asked, found, strict=True)]


def score_many(tasks: Sequence[Task], texts: Sequence[str]) -> list[float]:
    """`task.score(text)` of each pair, judged side by side."""
    return verdicts([(task.meta["problem"], text) for task, text in zip(tasks, texts, strict=True)])


def _judged(asked: Sequence[Asked], judge: Judge, box: Sandbox | None) -> list[Any]:
    """`judge` of each text's program, of equal ones once; None where a text gives none.

    What is found is remembered, so that a program is the same wherever it is asked about, even if it draws lots.
    """
    pairs = [(problem, problem.program(text)) for problem, text in asked]
    known = {pair: _MEMORY.get((judge, *pair)) for pair in pairs if pair[1] is not None}
    new = [pair for pair, found in known.items() if found is None]
    if new:
        try:
            some = box or _shared()
        except AnystepError as error:
            known.update(dict.fromkeys(new, Unscored(str(error))))
        else:
            with ThreadPoolExecutor(some.workers) as threads:
                known.update(zip(new, threads.map(lambda pair: _tried(judge, some, *pair), new), strict=True))
            for pair in new:
                if not isinstance(known[pair], Unscored):
                    _MEMORY.keep((judge, *pair), known[pair])
    return [known.get(pair) for pair in pairs]


def _tried(judge: Judge, box: Sandbox, problem: Problem, code: str) -> Any:
    try:
        return judge(box, problem, code)
    except (AnystepError, RuntimeError) as error:  # the sandbox's or the tests' failure, never the program's
        return Unscored(f"{problem.key} could not be judged: {error}")


def _verdict(box: Sandbox, problem: Problem, code: str) -> float:
    with box.open(code) as candidate:
        _known(candidate.opened)
        if isinstance(problem.hidden, Checked):
            with _for_tests(box.workers).open(harness(problem.hidden.code, problem.entry)) as tests:
                return float(relayed(tests, candidate, problem.entry)[0])
        for case in problem.hidden.cases:
            outcome = _known(candidate.call(problem.entry, case.arguments))
            if not (outcome.ok and same(outcome.value, case.expected)):
                return 0.0
    return 1.0


def _outcomes(box: Sandbox, problem: Problem, code: str) -> tuple[Outcome, ...]:
    """What became of the program as it was loaded, and then on the arguments shown."""
    with box.open(code) as candidate:
        calls = (candidate.call(problem.entry, case.arguments) for case in problem.shown)
        return tuple(map(_known, (candidate.opened, *calls)))


def _known(outcome: Outcome) -> Outcome:
    """The outcome. Raises RuntimeError where it tells nothing of the program, which is then not judged."""
    if outcome.lost:
        raise RuntimeError(outcome.detail)
    return outcome


def _share(problem: Problem, outcomes: Any) -> float:
    if outcomes is None:
        return 0.0
    if isinstance(outcomes, Unscored):
        return outcomes
    opened, *calls = outcomes
    told = [(case, outcome) for case, outcome in zip(problem.shown, calls, strict=True) if case.known]
    if not told:
        return float(any(outcome.ok for outcome in calls or (opened,)))
    return sum(outcome.ok and same(outcome.value, case.expected) for case, outcome in told) / len(told)


def _behaviour(problem: Problem, text: str, outcomes: Any) -> str | None:
    if outcomes is None or isinstance(outcomes, Unscored):
        return None
    if not problem.shown:
        return f"program {digest(problem.program(text)):016x}" if outcomes[0].ok else None
    if not any(outcome.ok for outcome in outcomes[1:]):
        return None
    return " | ".join(map(_worded, outcomes[1:]))


def _worded(outcome: Outcome) -> str:
    """What one call came to: its value in the one spelling, or why there is none."""
    if outcome.ok:
        said = spelled(outcome.value)
        return said if len(said) <= LONGEST else f"{said[:LONGEST]}... {digest(said):016x}"
    raised = outcome.status == "error" and outcome.detail
    return f"!{outcome.detail.split(':')[0].strip() if raised else outcome.status}"


def _shared() -> Sandbox:
    from anystep import sandbox

    return sandbox.shared()


@functools.cache
def _for_tests(workers: int) -> Sandbox:
    """Where tests that are code run. Apart from the candidates' sandbox, so that nobody who holds one of its workers
    for a candidate waits there for a second one."""
    from anystep import sandbox

    box = sandbox.Sandbox(workers=workers)
    atexit.register(box.close)
    return box


class _Memory:
    """The last judgements, safe in several threads."""

    def __init__(self, most: int) -> None:
        self.most, self.lock = most, threading.Lock()
        self.found: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Any) -> Any:
        with self.lock:
            return self.found.get(key)

    def keep(self, key: Any, value: Any) -> None:
        with self.lock:
            self.found[key] = value
            while len(self.found) > self.most:
                self.found.popitem(last=False)


_MEMORY = _Memory(KEPT)


def forget() -> None:
    """Forget what was judged, so that the next judgement runs the programs again."""
    with _MEMORY.lock:
        _MEMORY.found.clear()
