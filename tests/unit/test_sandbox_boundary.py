"""Which boundary is taken, and what a weaker one is refused for; and the folder that has no mount of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from anystep.errors import Unsupported, UsageError
from anystep.sandbox import Sandbox, boundary
from anystep.sandbox.boundary import NAMES, choose, known, tolerated
from anystep.sandbox.inside import scratch

MODULE = sys.modules["anystep.sandbox.boundary"]  # whose name in the package is that of its function


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """A machine where these boundaries hold, and no others."""
    monkeypatch.setattr(MODULE, "_why_not", lambda name: "" if name in names else f"{name}: not here")


def test_the_strongest_that_holds_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for i, name in enumerate(NAMES[:-1]):
        only(monkeypatch, *NAMES[i:])
        assert choose(None).name == name
        assert choose("process").name == name


def test_a_process_alone_is_never_taken_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "process")
    with pytest.raises(Unsupported, match=r'namespaces: not here.*Sandbox\(demand="process"\)') as caught:
        Sandbox()
    assert "\n" not in str(caught.value)
    assert choose("process").name == "process"


def test_what_is_demanded_is_not_gone_below(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "chroot", "process")
    assert choose("chroot").name == choose("landlock").name == "chroot"
    with pytest.raises(Unsupported):
        choose("namespaces")
    with pytest.raises(Unsupported):
        choose(None, only="namespaces")
    with pytest.raises(UsageError, match="namespaces"):
        choose("walls")


def test_nothing_at_all_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch)
    with pytest.raises(Unsupported, match="process: not here"):
        choose("process")


def test_every_boundary_says_what_it_holds_and_lacks() -> None:
    assert list(known()) == list(NAMES)
    for made in known().values():
        assert made.holds and made.lacks and made.name in str(made)
    assert not any(tolerated(name) for name in NAMES[:-1])
    assert "files" in tolerated("process")


def test_a_boundary_that_leaks_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe is sent for a file that every boundary shows: one of the library."""
    try:
        strongest = boundary().name
    except Unsupported as problem:
        pytest.skip(str(problem))
    assert MODULE.tried(strongest) == ""
    monkeypatch.setattr(MODULE, "PROBE", "print('files,network')")
    assert MODULE.tried(strongest) == f"the {strongest} boundary leaks files, network here"
    monkeypatch.setattr(MODULE, "PROBE", "import os; os._exit(0)")
    assert "ended with 'exit'" in MODULE.tried(strongest)


def test_a_folder_is_emptied_whatever_is_in_it(tmp_path: Path) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "kept").write_text("kept")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(beside)
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    locked = folder / "a" / "b"
    locked.mkdir(parents=True)
    (locked / "file").write_text("x")
    locked.chmod(0)
    (folder / "a").chmod(0)
    here = os.getcwd()
    os.chdir(folder)
    for _ in range(1100):  # deeper than a path may be long, or Python's stack
        os.mkdir("deeper")
        os.chdir("deeper")
    os.chdir(here)
    scratch.wipe(str(folder))
    assert list(folder.iterdir()) == [] and (beside / "kept").read_text() == "kept"
    scratch.clear(str(folder))
    scratch.clear(str(folder))
    assert not folder.exists()


def test_a_folder_is_too_full_by_bytes_by_names_and_by_depth(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(1000))
    assert not scratch.over(str(tmp_path), 1000)
    assert scratch.over(str(tmp_path), 999)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "y").write_bytes(bytes(1000))
    (tmp_path / "away").symlink_to("/")
    assert scratch.over(str(tmp_path), 1999)
    assert not scratch.over(str(tmp_path), 1 << 20)
    for i in range(scratch.FILES):
        (tmp_path / "sub" / f"{i}").touch()
    assert scratch.over(str(tmp_path), 1 << 30)
