"""Tests that are code, run apart from the program they test: calls and values pass between the two as literals.

The process with the tests holds no line of the candidate's, and the candidate's process holds no test. A call of
`candidate(...)` in the tests leaves its process as arguments, and comes back as the value that the candidate's process
returned. The tests cannot wait for it inside their process, so they are run again from the start with every answer so
far: call for call the same, as their random numbers are seeded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anystep.sandbox import Session

MOST_CALLS = 2_000  # of the candidate, in one run of the tests

_HARNESS = '''
class _Asked(BaseException):
    """The tests call the candidate, and its answer is not known yet."""


_answers = []


def _seeded():
    import random

    random.seed(0)


def _next(*answer):
    """Run the tests with one more answer: ("call", arguments) is what they ask next."""
    _answers.extend(answer)
    left = iter(_answers)

    def candidate(*args):
        for value in left:
            return _copy(value)
        raise _Asked(args)

    globals()[_entry] = candidate  # some tests call it by its own name
    _seeded()
    try:
        check(candidate)
    except _Asked as asked:
        return ("call", *asked.args)
    except Exception as error:
        return ("failed", type(error).__name__ + ": " + str(error)[:200])
    return ("passed",)


def _copy(value):
    import copy

    return copy.deepcopy(value)
'''


def relayed(tests: Session, candidate: Session, entry: str) -> tuple[bool, str]:
    """Whether the tests pass with the candidate's function, and why not where they do not.

    tests: a session of `harness(code, entry)`. candidate: a session of the program. Raises RuntimeError where the
    tests' process fails before it was told a value, or a worker is lost, which says nothing of the candidate.
    """
    answer: tuple[Any, ...] = ()
    for _ in range(MOST_CALLS):
        told = tests.call("_next", answer)
        if (
            not told.ok and told.status != "value" and answer and not told.lost
        ):  # what they were answered made them hang or fall: a right value does not
            return False, f"the tests ended with {told.status}: {told.detail}"
        if not told.ok:
            raise RuntimeError(f"the tests ended with {told.status}: {told.detail}")
        match told.value:
            case ("passed",):
                return True, ""
            case ("failed", str(why)):
                return False, why
            case ("call", tuple(args)):
                came = candidate.call(entry, args)
                if came.lost:
                    raise RuntimeError(came.detail)
                if not came.ok:
                    return False, f"{came.status}: {came.detail}"
                answer = (came.value,)
            case other:
                raise RuntimeError(f"the tests said {other!r:.200}")
    return False, f"more than {MOST_CALLS} calls"


def harness(code: str, entry: str) -> str:
    """The program of the tests' process; `code` defines `check(candidate)` and what it needs."""
    return f"{code}\n_entry = {entry!r}\n{_HARNESS}"
