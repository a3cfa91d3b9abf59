"""The sandbox as its users see it: programs, sessions, limits, workers, forks and threads."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator

import pytest

from anystep import sandbox
from anystep.errors import Unsupported, UsageError
from anystep.sandbox import Limits, Program, Sandbox
from anystep.sandbox.boundary import choose


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    try:
        choose(None)
    except Unsupported as problem:
        pytest.skip(str(problem))
    with Sandbox(workers=2, limits=Limits(wall=20.0)) as made:
        yield made


def test_a_program_prints_reads_and_ends(box: Sandbox) -> None:
    (outcome,) = box.run([Program("import sys\nprint(input()[::-1])\nprint('x', file=sys.stderr)", stdin="abc\n")])
    assert (outcome.status, outcome.stdout, outcome.stderr, outcome.exit_code) == ("ok", "cba\n", "x\n", 0)
    assert outcome.ok and 0 < outcome.cpu < 2 and outcome.wall > 0


def test_outcomes_come_in_the_order_of_the_programs(box: Sandbox) -> None:
    outcomes = box.run([f"import time; time.sleep({(7 - i) / 100}); print({i})" for i in range(7)])
    assert [o.stdout for o in outcomes] == [f"{i}\n" for i in range(7)]
    assert box.run([]) == []
    assert box.run("print(1)")[0].stdout == "1\n"


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [
        ("1 / 0", "error", 1),
        ("def f(:", "error", 1),
        ("import sys; sys.exit()", "exit", 0),
        ("import sys; sys.exit(3)", "exit", 3),
        ("import sys; sys.exit('no')", "exit", 1),
        ("import os; os._exit(0)", "exit", 0),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "killed", -15),
        ("import os; os.abort()", "killed", -6),
        ("x = bytearray(1 << 30)", "memory", 1),
        ("x = []\nwhile True: x.append(len(x))", "memory", 1),
        ("print('x' * (1 << 20))", "output", None),
        ("import sys\nwhile True: sys.stderr.write('x' * 1000)", "output", None),
    ],
)
def test_how_a_program_ends_is_told(box: Sandbox, code: str, status: str, exit_code: int | None) -> None:
    (outcome,) = box.run([code])
    assert outcome.status == status, outcome
    if exit_code is not None:
        assert outcome.exit_code == exit_code
    assert len(outcome.stdout) + len(outcome.stderr) <= box.limits.output
    assert not outcome.ok


def test_time_runs_out_by_clock_and_by_processor(box: Sandbox) -> None:
    asleep = Program("print('a', flush=True)\nimport time; time.sleep(60)", limits=Limits(wall=0.5))
    busy = Program("print('b', flush=True)\nwhile True: pass", limits=Limits(cpu=0.2, wall=60.0))
    slept, worked = box.run([asleep, busy])
    assert (slept.status, slept.stdout) == ("timeout", "a\n")
    assert (worked.status, worked.stdout) == ("cpu", "b\n")
    assert worked.cpu >= 0.2


def test_an_error_is_told_with_its_line_and_without_our_frames(box: Sandbox) -> None:
    (outcome,) = box.run(["def f():\n    raise ValueError('so')\nf()"])
    assert outcome.detail == "ValueError: so"
    assert "raise ValueError('so')" in outcome.stderr
    assert "anystep" not in outcome.stderr


def test_files_lie_in_scratch_and_nothing_is_left_for_the_next(box: Sandbox) -> None:
    program = Program(
        "import os\nprint(open('a/b.txt').read(), sorted(os.listdir()))\nopen('c', 'w').write('left')\n"
        "import random, math\nmath.pi = 3\nprint(random.random())",
        files={"a/b.txt": b"text"},
    )
    first, second = box.run([program])[0], box.run([program])[0]
    assert first.ok and first.stdout.startswith("text ['a']")
    assert first.stdout == second.stdout  # random numbers too
    after = box.run(["import os, math; print(os.listdir(), math.pi)"] * 4)
    assert {o.stdout for o in after} == {"[] 3.141592653589793\n"}


def test_the_order_of_a_set_is_the_same_on_every_worker(box: Sandbox) -> None:
    outcomes = box.run(["print(set('abcdefghij'), hash('x'))"] * 6)
    assert len({o.stdout for o in outcomes}) == 1


def test_standard_library_is_there_and_what_others_installed_is_not(box: Sandbox) -> None:
    (outcome,) = box.run(["import json, asyncio, sqlite3, tomllib, graphlib\nasyncio.run(asyncio.sleep(0))"])
    assert outcome.ok, outcome
    for name in ("anystep", "numpy", "torch"):
        (outcome,) = box.run([f"import {name}"])
        assert outcome.detail == f"ModuleNotFoundError: No module named '{name}'"


def test_threads_and_processes_only_where_allowed(box: Sandbox) -> None:
    threads = "import threading\nts = [threading.Thread(target=print, args=(i,)) for i in range(2)]\n"
    threads += "[t.start() for t in ts]\n[t.join() for t in ts]"
    fork = (
        "import os\npid = os.fork()\nif not pid: os._exit(5)\nprint(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    refused = box.run([threads, fork])
    assert [o.status for o in refused] == ["error", "error"]
    some = Limits(processes=3, wall=20.0)
    allowed = box.run([Program(threads, limits=some), Program(fork, limits=some)])
    assert [(o.status, sorted(o.stdout.split())) for o in allowed] == [("ok", ["0", "1"]), ("ok", ["5"])], allowed


CODE = """
def f(a, b): return {a: b, "x": (1.5, None, b"z", {1, 2}, True)}
def fails(): raise KeyError("k")
def forever():
    while True: pass
def odd(): return object()
def leave(): raise SystemExit(0)
def say(x): print(x)
counter = 0
def count():
    global counter
    counter += 1
    return counter
"""


def test_a_session_answers_calls_with_literals(box: Sandbox) -> None:
    with box.open(CODE) as session:
        assert session.opened.ok
        assert session.call("f", (1, [2, 3])).value == {1: [2, 3], "x": (1.5, None, b"z", {1, 2}, True)}
        assert [session.call("count").value for _ in range(3)] == [1, 2, 3]
        assert session.call("say", ("hello",)).stdout == "hello\n"
        assert session.call("f", (1, 2)).stdout == ""
        failed = session.call("fails")
        assert (failed.status, failed.detail) == ("error", "KeyError: 'k'")
        assert session.call("nothing").status == "error"
        assert session.call("odd").status == "value"
        assert session.call("count").value == 4


def test_a_session_ends_with_the_call_that_goes_too_far(box: Sandbox) -> None:
    with box.open(Program(CODE, limits=Limits(cpu=0.3, wall=30.0))) as session:
        assert session.call("count").value == 1
        assert session.call("forever").status == "cpu"
        after = session.call("count")
        assert (after.status, after.value) == ("closed", None)
    with box.open(CODE) as session:
        left = session.call("leave")
        assert (left.status, left.exit_code) == ("exit", 0)
        assert not session.alive
    assert box.run(["print(1)"] * 4)[3].ok


def test_definitions_that_fail_leave_nothing_to_call(box: Sandbox) -> None:
    with box.open("1 / 0") as session:
        assert session.opened.detail == "ZeroDivisionError: division by zero"
        assert session.call("f").status == "closed"
    session.close()
    assert session.call("f").detail == "the session was closed"


def test_several_threads_share_a_sandbox(box: Sandbox) -> None:
    found: dict[int, list[str]] = {}

    def work(k: int) -> None:
        found[k] = [o.stdout for o in box.run([f"print({k}, {i})" for i in range(4)])]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {k: [f"{k} {i}\n" for i in range(4)] for k in range(5)}


def test_a_thread_that_ends_takes_no_worker_with_it(box: Sandbox) -> None:
    with Sandbox(workers=1, limits=box.limits) as own:
        thread = threading.Thread(target=lambda: own.run(["print(1)"]))
        thread.start()
        thread.join()
        (worker,) = own._idle
        assert own.run(["print(2)"])[0].stdout == "2\n"
        assert own._idle == [worker]


def test_a_forked_process_starts_workers_of_its_own(box: Sandbox) -> None:
    assert box.run(["print(1)"])[0].ok
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if box.run(["print(2)"])[0].stdout == "2\n" else 2
            box.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert box.run(["print(3)"] * 3)[2].stdout == "3\n"


def test_a_worker_that_is_killed_costs_one_outcome(box: Sandbox) -> None:
    with Sandbox(workers=1, limits=box.limits) as own:
        own.run(["0"])
        (worker,) = own._idle
        found = []
        thread = threading.Thread(target=lambda: found.extend(own.run(["import time; time.sleep(30)"])))
        thread.start()
        time.sleep(0.3)
        worker.process.kill()
        thread.join()
        assert found[0].lost and found[0].status == "killed" and "worker was lost" in found[0].detail
        assert not own.run("import os; os.kill(os.getpid(), 9)")[0].lost
        assert own.run(["print(4)"])[0].stdout == "4\n"


def test_a_session_that_is_forgotten_gives_its_worker_back(box: Sandbox) -> None:
    with Sandbox(workers=1, limits=box.limits) as own:
        assert own.open("def f(): return 1").opened.ok
        gc.collect()
        assert own._lent == 0 and own.run("print(1)")[0].ok


def test_a_forked_process_leaves_its_parents_session_alone(box: Sandbox) -> None:
    with box.open("def f(): return 1") as session:
        pid = os.fork()
        if pid == 0:
            try:
                told = session.call("f")
                session.close()
                fine = not told.ok and box._lent == 0 and box.run("print(1)")[0].ok
            finally:
                os._exit(0 if fine else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert session.call("f").value == 1


@pytest.mark.parametrize(
    "files",
    [
        {"a": b"", "a/b": b""},
        {"a" * 300: b""},
        {"\ud800": b""},
        {"a": bytes(2 << 20)},
        {str(i): b"" for i in range(2000)},
    ],
)
def test_files_that_do_not_fit_are_told_and_cost_no_worker(box: Sandbox, files: dict[str, bytes]) -> None:
    with Sandbox(workers=1, limits=Limits(scratch=1 << 20)) as own:
        assert own.run("1")[0].ok
        (worker,) = own._idle
        outcome = own.run(Program("print(1)", files=files))[0]
        assert outcome.status == "scratch", outcome
        with own.open(Program("1", files=files)) as session:
            assert session.opened.status == "scratch" and session.call("f").status == "closed"
        assert own._idle == [worker]


def test_the_boundary_says_what_holds(box: Sandbox) -> None:
    assert box.boundary.holds and box.boundary.lacks
    assert sandbox.boundary() == choose(None)
    assert sandbox.shared() is sandbox.shared()
    assert sandbox.shared().run("print(5)")[0].stdout == "5\n"


@pytest.mark.parametrize(
    "call",
    [
        lambda: Limits(cpu=0),
        lambda: Limits(wall=float("nan")),
        lambda: Limits(memory=1 << 20),
        lambda: Limits(output=1.5),  # type: ignore[arg-type]
        lambda: Limits(processes=-1),
        lambda: Limits(wall=1e300),
        lambda: Limits(memory=1 << 70),
        lambda: Program(b"1"),  # type: ignore[arg-type]
        lambda: Program("1", files={"../x": b""}),
        lambda: Program("1", files={"/x": b""}),
        lambda: Program("1", files={"x": "text"}),  # type: ignore[dict-item]
        lambda: Sandbox(workers=0),
        lambda: Sandbox(demand="walls"),
    ],
)
def test_a_wrong_call_is_one_line_that_shows_the_right_one(call: object) -> None:
    with pytest.raises(UsageError) as caught:
        call()  # type: ignore[operator]
    assert "\n" not in str(caught.value) and "(" in str(caught.value)


def test_a_closed_sandbox_says_so() -> None:
    try:
        own = Sandbox()
    except Unsupported as problem:
        pytest.skip(str(problem))
    own.close()
    own.close()
    with pytest.raises(UsageError, match="closed"):
        own.run(["1"])


def test_arguments_that_are_no_literals_are_the_callers_mistake(box: Sandbox) -> None:
    with box.open("def f(x): return x") as session:
        with pytest.raises(UsageError, match="no literal"):
            session.call("f", (object(),))
        assert session.call("f", (1,)).value == 1


def test_files_that_do_not_fit_are_told(box: Sandbox) -> None:
    limits = Limits(scratch=1 << 16, wall=20.0)
    big, many, clash = box.run(
        [
            Program("print(1)", files={"x": bytes(1 << 17)}, limits=limits),
            Program("print(1)", files={f"{i}": b"1" for i in range(3000)}),
            Program("print(1)", files={"a": b"", "a/b": b""}),
        ]
    )
    assert (big.status, clash.status) == ("scratch", "scratch") and "65536" in big.detail
    assert many.status in ("scratch", "ok")  # a mount bounds their number; a folder is measured now and then
    assert box.run(["print(2)"])[0].stdout == "2\n"


def test_sessions_that_hold_every_worker_of_their_own_thread_are_no_deadlock(box: Sandbox) -> None:
    with (
        Sandbox(workers=1, limits=box.limits) as own,
        own.open("x = 1"),
        pytest.raises(UsageError, match="hold all 1 workers"),
    ):
        own.run(["print(1)"])
    with Sandbox(workers=1, limits=box.limits) as own:
        own.open("x = 1").close()
        assert own.run(["print(1)"])[0].ok


def test_a_session_of_a_process_s_parent_is_closed_to_it(box: Sandbox) -> None:
    with box.open("def f(): return 1") as session:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if session.call("f").status == "killed" and box.run(["print(1)"])[0].ok else 2
                session.close()
                box.close()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert session.call("f").value == 1


def test_odd_text_goes_in_and_comes_out(box: Sandbox) -> None:
    text = "\ud800 \x00 é\n"
    (echo,) = box.run([Program("import sys; print(ascii(sys.stdin.read()))", stdin=text)])
    assert echo.ok and "\\xe9" in echo.stdout
    assert [o.status for o in box.run(["x = '\ud800'", "x = '\0'"])] == ["error", "error"]


def test_an_interrupt_stops_the_programs_that_have_not_begun(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def interrupted(program: Program) -> None:
        begun.append(program)
        raise KeyboardInterrupt

    with Sandbox(workers=2, limits=box.limits) as own:
        monkeypatch.setattr(own, "_one", interrupted)
        with pytest.raises(KeyboardInterrupt):
            own.run(["print(1)"] * 50)
    assert len(begun) <= 2
