"""How the compiled kernels come to be, and what happens where they cannot."""

import os
import shutil
import subprocess
import sys

import pytest

from anystep.language.engine import native

pytestmark = pytest.mark.skipif(
    not native.cpu_flags() >= native.NEEDED or not any(map(shutil.which, ("cc", "gcc", "clang"))),
    reason="no C compiler, or a CPU without AVX-512 dot products",
)


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    monkeypatch.delenv("ANYSTEP_KERNELS", raising=False)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    monkeypatch.setattr(native, "FLAGS", ("-O0", *native.FLAGS[1:]))  # compiled in no time
    return native.library.__wrapped__


def script(tmp_path, line):
    path = tmp_path / "compiler"
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o700)
    return str(path)


def test_it_is_compiled_once_and_found_again(fresh, monkeypatch, tmp_path):
    assert fresh() is not None
    (found,) = (tmp_path / "kernels").iterdir()
    assert found.stat().st_mode & 0o077 == 0
    monkeypatch.setenv("CC", script(tmp_path, "exit 1"))
    assert fresh() is not None  # nothing is compiled the second time


def test_no_compiler_and_one_that_fails_or_writes_rubbish_leave_torch(fresh, monkeypatch, tmp_path):
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    assert fresh() is None
    monkeypatch.undo()
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    for line in ("exit 1", "exit 0", 'while [ "$1" != -o ]; do shift; done; echo rubbish > "$2"'):
        monkeypatch.setenv("CC", script(tmp_path, line))
        assert fresh() is None


def test_a_library_without_the_calls_leaves_torch(fresh, monkeypatch, tmp_path):
    empty = tmp_path / "empty.c"
    empty.write_text("int nothing;\n")
    monkeypatch.setattr(native, "SOURCE", empty)
    assert fresh() is None


def test_the_compiler_may_have_arguments(fresh, monkeypatch, tmp_path):
    real = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))))
    line = f'[ "$1" = --mine ] && shift && touch {tmp_path}/used; exec {real} "$@"'
    monkeypatch.setenv("CC", script(tmp_path, line) + " --mine")
    assert fresh() is not None and (tmp_path / "used").exists()


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_nothing_is_loaded_that_others_could_have_written(fresh, tmp_path, mode):
    assert fresh() is not None
    folder = tmp_path / "kernels"
    (found,) = folder.iterdir()
    for path in (found, folder):
        path.chmod(mode)
        assert fresh() is None
        path.chmod(0o700)
    assert fresh() is not None


def test_without_a_home_or_its_source_it_leaves_torch(fresh, monkeypatch, tmp_path):
    monkeypatch.delenv("ANYSTEP_CACHE")
    monkeypatch.setattr(native.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert fresh() is None
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    monkeypatch.setattr(native, "SOURCE", tmp_path / "gone.c")
    assert fresh() is None


def test_an_unwritable_folder_leaves_torch(fresh, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path / "file"))
    assert fresh() is None


def test_two_processes_may_compile_at_once(fresh, tmp_path):
    line = (
        "from anystep.language.engine import native; native.FLAGS = ('-O0', *native.FLAGS[1:]); "
        "assert native.library() is not None"
    )
    each = [subprocess.Popen([sys.executable, "-c", line], env=os.environ.copy()) for _ in range(2)]
    assert [process.wait(60) for process in each] == [0, 0]
    assert len(list((tmp_path / "kernels").iterdir())) == 1
