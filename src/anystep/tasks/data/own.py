"""The user's own code: a function named `python:module.function` or `python:path/to/file.py:function`.

It is imported as any Python code is, with all that it may do. Nothing a model writes is ever read as such a name.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from anystep.errors import UsageError

PREFIX = "python:"
SHAPE = "python:module.function or python:path/to/file.py:function"


def own_function(spec: str) -> Callable[..., Any]:
    """The function that `spec` names. Raises UsageError, with file and line, where importing its module fails."""
    target = spec.removeprefix(PREFIX)
    place, colon, name = target.rpartition(":")
    if not colon:
        place, _, name = target.rpartition(".")
    if not place or not name:
        raise UsageError(f"{spec!r} names no function; write {SHAPE}.")
    module = own_file(Path(place)) if place.endswith(".py") else _module(place)
    found = getattr(module, name, None)
    if not callable(found):
        there = ", ".join(n for n, v in vars(module).items() if inspect.isfunction(v) and not n.startswith("_"))
        raise UsageError(f"{place} has no function {name!r}; it has {there or 'none'}.")
    return found


def own_file(path: Path) -> ModuleType:
    """A Python file as a module, executed once a process as long as it stays as it is. UsageError, with file and line,
    where that fails."""
    whole = path.expanduser().resolve()
    try:
        source = whole.read_bytes()
    except OSError:
        raise UsageError(f"there is no file {path}; write {SHAPE}.") from None
    content = str(whole).encode(errors="surrogateescape") + b"\0" + source
    name = f"anystep_own_{hashlib.sha256(content).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, whole)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _beside(whole.parent):
            exec(compile(source, str(whole), "exec"), module.__dict__)  # not by its loader, whose cache may be stale
    except Exception as error:
        del sys.modules[name]
        raise UsageError(where(error, path, whole)) from error
    return module


def where(error: BaseException, path: Path, whole: Path | None = None) -> str:
    """An error of the user's own file in one line: `my.py:12: NameError: name 'x' is not defined`."""
    whole = whole or path.expanduser().resolve()
    if isinstance(error, SyntaxError) and error.filename == str(whole):
        return f"{path}:{error.lineno}: {type(error).__name__}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(whole)]
    return f"{path}:{lines[-1] if lines else 1}: {type(error).__name__}: {error}"


def source_digest(function: Any) -> str:
    """A digest of the file that holds a function or module: when its text changes, so may what it does."""
    try:
        return hashlib.sha256(Path(inspect.getfile(function)).read_bytes()).hexdigest()[:16]
    except (TypeError, OSError):
        return ""


def _module(name: str) -> ModuleType:
    try:
        with _beside(Path.cwd()):
            return importlib.import_module(name)
    except Exception as error:
        raise UsageError(f"cannot import {name}: {type(error).__name__}: {error}; write {SHAPE}.") from error


@contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """With the files of `folder` importable, as for a script that is run there."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
