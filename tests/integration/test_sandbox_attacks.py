"""Every attack is contained by every boundary that this machine has, and the next program runs as if nothing was.

The attacks stand in `tests/attacks.py`. What a boundary says that it lacks is not asked of it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.attacks import ATTACKS, HELPERS, QUICK, Attack

from anystep.errors import Unsupported
from anystep.sandbox import Limits, Program, Sandbox
from anystep.sandbox.boundary import NAMES, choose
from anystep.sandbox.worker import Worker

SOURCE = Path(__file__).resolve().parents[2] / "src"
LINUX = sys.platform == "linux"
pytestmark = pytest.mark.skipif(not LINUX, reason="what is asked here is what Linux can hold")


@dataclass
class Outside:
    """What an attack might reach: a file, a process, a port, and how they were before."""

    folder: Path
    secret: Path = field(init=False)
    victim: subprocess.Popen[bytes] = field(init=False)
    port: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self.secret = self.folder / "secret.txt"
        self.secret.write_text("sk-parent-file")
        self.secret.chmod(0o666)  # so that it is the boundary that keeps it, and not its owner
        self.folder.chmod(0o777)
        self.victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self.port = socket.create_server(("127.0.0.1", 0))
        self.port.setblocking(False)

    def names(self) -> dict[str, object]:
        return {
            "secret": self.secret,
            "folder": self.folder,
            "parent": os.getpid(),
            "victim": self.victim.pid,
            "port": self.port.getsockname()[1],
            "source": SOURCE,
            "packages": sysconfig.get_path("purelib"),
        }

    def assert_unharmed(self) -> None:
        assert self.victim.poll() is None
        assert self.secret.read_text() == "sk-parent-file"
        assert sorted(p.name for p in self.folder.iterdir()) == ["secret.txt"]
        with pytest.raises(BlockingIOError):
            self.port.accept()

    def end(self) -> None:
        self.victim.kill()
        self.victim.wait()
        self.port.close()


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    made = Outside(Path(tempfile.mkdtemp(prefix="anystep-outside-")))  # where every user can reach it
    inherited = os.open(made.secret, os.O_RDWR)
    os.set_inheritable(inherited, True)
    os.environ["FAKE_API_KEY"] = "sk-parent-environment"
    try:
        yield made
    finally:
        del os.environ["FAKE_API_KEY"]
        os.close(inherited)
        made.end()
        made.secret.unlink()
        made.folder.rmdir()


@pytest.fixture(scope="module", params=NAMES)
def box(request: pytest.FixtureRequest, outside: Outside) -> Iterator[Sandbox]:
    try:
        choose(None, only=request.param)
    except Unsupported as problem:
        pytest.skip(str(problem))
    with Sandbox(workers=1, limits=QUICK, only=request.param) as made:
        assert made.run("1")[0].ok
        yield made


def family(pid: int) -> set[int]:
    """A process's descendants, itself among them."""
    parents: dict[int, int] = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            parents[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
    found, size = {pid}, 0
    while len(found) > size:
        size = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found


def at_rest(pid: int) -> set[int]:
    """The descendants, once they have been the same for a while: a supervisor ends just after it has answered."""
    now, since, until = family(pid), time.monotonic(), time.monotonic() + 20
    while time.monotonic() - since < 0.3 and time.monotonic() < until:
        time.sleep(0.02)
        if (then := family(pid)) != now:
            now, since = then, time.monotonic()
    return now


def vanished(pids: set[int]) -> set[int]:
    """Which of the processes are still there after some time; none, if all is well."""
    until = time.monotonic() + 20
    while (alive := {pid for pid in pids if Path(f"/proc/{pid}").exists()}) and time.monotonic() < until:
        time.sleep(0.05)
    return alive


def settled(pid: int, wanted: set[int]) -> set[int]:
    """The descendants, once they are those, or after some time."""
    until = time.monotonic() + 10
    while (now := family(pid)) != wanted and time.monotonic() < until:
        time.sleep(0.02)
    return now


FAMILIES: dict[Worker, set[int]] = {}


def idle_family(worker: Worker) -> set[int]:
    """A worker's processes when it runs nothing."""
    if worker not in FAMILIES:
        FAMILIES[worker] = at_rest(worker.process.pid)
    return FAMILIES[worker]


def the_worker(box: Sandbox) -> Worker:
    """The sandbox's one worker; a new one where an attack has cost it the last, which is that attack's failure."""
    if not box._idle:
        box.run(["1"])
    return box._idle[0]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_is_contained(box: Sandbox, outside: Outside, attack: Attack) -> None:
    if attack.needs == "files" and box.boundary.name == "process":
        pytest.skip("this boundary says that it lacks this")
    if platform.machine() != "x86_64" and ("RAW" in attack.code or "c_long" in attack.code or "foreign" in attack.name):
        pytest.skip("numbers of another machine")
    worker = the_worker(box)
    before = idle_family(worker)
    code = attack.code
    for name, value in outside.names().items():
        code = code.replace("{" + name + "}", str(value))
    code = code.replace("{{", "{").replace("}}", "}")
    (outcome,) = box.run([Program(HELPERS + code, limits=attack.limits)])
    assert "BREACH" not in outcome.stdout + outcome.stderr, outcome
    assert outcome.status in attack.ends.split(), outcome
    assert len(outcome.stdout.encode()) + len(outcome.stderr.encode()) <= 3 * attack.limits.output
    assert outcome.cpu < attack.limits.cpu + 2 and outcome.wall < attack.limits.wall + 5
    outside.assert_unharmed()
    assert box._idle == [worker], "the worker did not survive"
    assert settled(worker.process.pid, before) == before, "something still runs"
    (after,) = box.run(["import os, math; print(6 * 7, os.listdir(), os.getcwd() != '/', math.pi)"])
    assert (after.status, after.stdout) == ("ok", "42 [] True 3.141592653589793\n"), after


SESSION_ATTACKS = {
    "pickle": ("class E:\n    def __reduce__(self): return (print, ('BREACH',))\ndef f(): return E()", "value"),
    "odd_dict": ("class D(dict):\n    def items(self): return [(1, 2)] * 9\ndef f(): return D(a=1)", "garbled"),
    "nested": ("def f():\n    x = []\n    x.append(x)\n    return x", "value"),
    "long": ("def f(): return 'x' * (1 << 20)", "output"),
    "one_hash": ("def f(): return set(k * ((1 << 61) - 1) for k in range(2000))", "garbled cpu"),
    "leaves": ("import os\ndef f(): os._exit(0)", "exit"),
    "raises_exit": ("def f(): raise SystemExit(0)", "exit"),
    "floods": ("import os\ndef f():\n    while True: os.write(4, b'x' * 65536)", "output garbled"),
    "garbage": ("import os\ndef f(): os.write(4, b'\\0\\0\\0\\1?'); return 1", "garbled"),
    "answers_twice": (
        "import os\ndef f():\n    frame = b't\\0\\0\\0\\2s\\0\\0\\0\\2okb\\0\\0\\0\\1N'\n"
        "    os.write(4, (len(frame).to_bytes(4, 'big') + frame) * 2)\n    return 1",
        "garbled",
    ),
    "waits_on_the_line": ("import os\ndef f(): os.read(3, 1)", "timeout"),
    "closes_the_line": ("import os\ndef f(): os.closerange(3, 99)", "exit"),
    "loops": ("def f():\n    while True: pass", "cpu"),
    "memory": ("def f(): return [0] * (1 << 40)", "memory"),
    "memory_bit_by_bit": ("kept = []\ndef f():\n    while True: kept.append([0])", "memory cpu"),
    "not_there": ("", "error"),
    "no_function": ("f = 3", "error"),
    "hostile_error": ("class E(Exception):\n    def __str__(self): raise E\ndef f(): raise E", "error"),
}


UNREADABLE = ("odd_dict", "one_hash")  # values that only our reader refuses: the program has done nothing wrong


@pytest.mark.parametrize("name", SESSION_ATTACKS)
def test_a_hostile_session_is_contained(box: Sandbox, outside: Outside, name: str) -> None:
    code, ends = SESSION_ATTACKS[name]
    worker = the_worker(box)
    before = idle_family(worker)
    wall = 2.0 if "timeout" in ends else 40.0
    with box.open(Program(code, limits=Limits(cpu=0.4, wall=wall))) as session:
        assert session.opened.ok, session.opened
        outcome = session.call("f")
        assert outcome.status in ends.split(), outcome
        assert "BREACH" not in outcome.stdout
        if not session.alive:
            assert session.call("f").status == "closed"
        assert session.alive == (outcome.status in ("ok", "error", "value", "memory") or name in UNREADABLE)
    outside.assert_unharmed()
    assert settled(worker.process.pid, before) == before
    (after,) = box.run(["print(6 * 7)"])
    assert (after.status, after.stdout) == ("ok", "42\n")


def test_nothing_of_a_program_is_in_the_next(box: Sandbox) -> None:
    """Not in files, modules, memory that Python knows of, shared memory, or the environment."""
    first = box.run(
        [
            "import os, sys, json, threading\nos.environ['LEFT'] = 'left-behind'\njson.left = 'left-behind'\n"
            "sys.modules['left'] = json\nopen('left', 'w').write('left-behind')\n"
            "keep = ['left-' + 'behind'] * 9\nos.umask(0o777)\nos.chdir('/')"
        ]
    )
    assert first[0].ok
    (after,) = box.run(
        [
            "import os, sys, gc\nfound = []\n"
            "if 'LEFT' in os.environ or 'left' in sys.modules or os.listdir(): found.append('state')\n"
            "marks = [x for x in gc.get_objects() if isinstance(x, list) and 'left-' + 'behind' in map(str, x[:3])]\n"
            "print(found, len(marks), oct(os.umask(0o022)))"
        ]
    )
    assert after.stdout == "[] 0 0o22\n", after


def test_two_hundred_programs_leave_nothing(box: Sandbox) -> None:
    """No descriptor, no process, no file: here, and in the zygote."""
    worker = the_worker(box)
    zygote = max(idle_family(worker))

    def held() -> tuple[int, set[int], list[str]]:
        files = [p.name for p in Path(worker.folder).glob("[ts][mc]*/*")] if worker.folder else []  # tmp or scratch
        return len(os.listdir("/proc/self/fd")), at_rest(worker.process.pid), files

    def descriptors() -> int | None:
        with contextlib.suppress(PermissionError):  # another user's, where we are not root
            return len(os.listdir(f"/proc/{zygote}/fd"))
        return None

    before, open_before = held(), descriptors()
    kinds = ["print(1)", "1 / 0", "open('x', 'w').write('y' * 9999)", "import os; os._exit(1)"]
    outcomes = box.run([kinds[i % 4] for i in range(200)])
    assert [o.status for o in outcomes[:4]] == ["ok", "error", "ok", "exit"]
    assert box._idle == [worker]
    assert held() == before
    assert descriptors() == open_before


def test_a_sandbox_that_is_closed_leaves_nothing(box: Sandbox) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Sandbox(workers=1, limits=QUICK, only=box.boundary.name) as own:
        session = own.open("import os\nopen('x', 'w').close()\ndef f(): pass")
        worker = session._worker
        assert worker is not None
        everyone = family(worker.process.pid)
    session.close()
    assert not vanished(everyone)
    assert worker.folder is None or not Path(worker.folder).exists()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("by", ["hand", "group"])
def test_a_parent_that_is_killed_takes_everything_with_it(box: Sandbox, by: str) -> None:
    script = (
        "import os, sys, threading, time\n"
        "from anystep.sandbox import Limits, Sandbox\n"
        f"box = Sandbox(workers=2, only={box.boundary.name!r}, limits=Limits(wall=300.0, processes=9))\n"
        "box.run(['import time; time.sleep(1)'] * 2)\n"
        "print(*(w.folder for w in box._idle), flush=True)\n"
        "code = \"import os, time; open('x', 'w').close(); os.fork(); time.sleep(300)\"\n"
        "box.run([code, code])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), *sys.path])}
    command = [sys.executable, "-c", script]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True)
    assert parent.stdout is not None
    kept = parent.stdout.readline().decode().split()
    until = time.monotonic() + 30
    while len(everyone := family(parent.pid) - {parent.pid}) < 8 and time.monotonic() < until:
        time.sleep(0.05)
    assert len(everyone) >= 8, everyone  # for each worker: zygote, supervisor, the program and its child
    if by == "group":  # as a terminal that is closed, or timeout(1), does it
        os.killpg(parent.pid, signal.SIGTERM)
    else:
        parent.kill()
    parent.wait()
    parent.stdout.close()
    assert not vanished(everyone)
    assert len(kept) == 2 and not any(os.path.exists(folder) for folder in kept)


def test_a_supervisor_cannot_be_reached(box: Sandbox) -> None:
    """Outside, the program's and the supervisor's processes are not to be looked into by their own user."""
    worker = the_worker(box)
    code = (
        f"import os\nfor pid in {{{max(idle_family(worker))}, os.getppid()}}:\n"
        "    for name in ('mem', 'environ', 'fd/4', 'maps', 'root/etc/passwd'):\n"
        "        try: print('BREACH', pid, open(f'/proc/{pid}/{name}', 'rb').read(1))\n"
        "        except OSError: pass"
    )
    (outcome,) = box.run([code])
    assert "BREACH" not in outcome.stdout, outcome


def test_scratch_is_bounded_between_the_calls_of_a_session_too(box: Sandbox) -> None:
    code = """
import signal
def fill(*_):
    for i in range(400):
        open(f"x{i}", "wb").write(bytes(1 << 20))
signal.signal(signal.SIGALRM, fill)
def f():
    signal.setitimer(signal.ITIMER_REAL, 0.1)
"""
    with box.open(Program(code, limits=Limits(scratch=1 << 20, wall=5.0))) as session:
        assert session.call("f").ok
        time.sleep(1.0)
        assert session.call("f").status in ("scratch", "exit")  # a mount that is full, or a look at a folder


def test_a_file_is_not_cut_short_by_its_name_where_others_can_be_named(box: Sandbox) -> None:
    (outcome,) = box.run(
        ["import os\nopen('x', 'w').write('abc')\ntry: os.truncate('x', 1)\nexcept OSError: print('no')"]
    )
    assert outcome.stdout == ("no\n" if box.boundary.name in ("landlock", "process") else "")


def test_a_supervisor_that_is_killed_leaves_none_of_its_program_s_children(box: Sandbox) -> None:
    with Sandbox(workers=1, limits=Limits(processes=2, wall=20.0), only=box.boundary.name) as own:
        worker = the_worker(own)
        idle = at_rest(worker.process.pid)
        code = "import os, time\nos.fork()\ntime.sleep(15)"
        thread = threading.Thread(target=own.run, args=([code],))
        thread.start()
        until = time.monotonic() + 10
        while len(made := family(worker.process.pid) - idle) < 3 and time.monotonic() < until:
            time.sleep(0.05)
        assert len(made) == 3
        os.kill(min(made), signal.SIGKILL)
        thread.join()
        assert not vanished(made | idle)
        assert own.run("1")[0].ok
