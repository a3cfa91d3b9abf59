"""Methods of one's own: a Python file of procedures, ready-made families and rewards, beside the named ones."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from anystep.bench.entry import NS, Entry, check_ns, entry
from anystep.errors import AnystepError, UsageError
from anystep.naming import Asks
from anystep.procedure import Exploring, Method
from anystep.process import Reward
from anystep.tasks.data.own import own_file, source_digest, where
from anystep.tasks.task import Task

SHAPE = "METHODS = {'mine': lambda n, task: my_method(n=n)}"


@dataclass(frozen=True)
class MethodsFile:
    """What a file defines. It is the user's own code, imported as any Python file is.

    families: its `METHODS`, label to `(n, task) -> Method`. procedures: its functions under `@anystep.procedure`, to be
    named in a method's text. rewards: its `REWARDS`, name to `task -> Reward`, for the same.
    """

    path: Path
    families: dict[str, Callable[[int, Task], Method]]
    procedures: dict[str, Callable[..., Method]]
    rewards: dict[str, Callable[..., Reward]]
    digest: str

    def entries(self, ns: Sequence[int] = NS, asks: Asks | None = None) -> list[Entry]:
        """Every family, and every procedure that needs nothing but its size; UsageError where there is neither."""
        found = [self.entry(label, ns, asks) for label in self.families]
        found += [self.entry(name, ns, asks) for name, make in self.procedures.items() if _needs_only_n(make)]
        if not found:
            have = ", ".join(self.procedures) or "no procedure"
            raise UsageError(
                f"{self.path} has no methods to compare ({have} there): add {SHAPE}, or name one with its options, "
                f'--method "{self.path}:{next(iter(self.procedures), "mine")}(reward=equations)".'
            )
        return found

    def entry(self, text: str, ns: Sequence[int] = NS, asks: Asks | None = None) -> Entry:
        """One family by its label, or a method's text with the file's procedures and rewards among the known names."""
        text = text.strip()
        if text in self.families:
            made = Entry(text, self._guarded(self.families[text]), check_ns(ns))
        else:
            made = entry(text, ns, methods=self.procedures, rewards=self.rewards, asks=asks)
            made = replace(made, family=self._guarded(made.family))
        return replace(made, key=f"{self.digest} {made.label}")

    def _guarded(self, family: Callable[[int, Task], Method]) -> Callable[[int, Task], Method]:
        """With every error of the file's code as one line that names its place."""

        def guarded(n: int, task: Task) -> Method:
            try:
                method = family(n, task)
            except AnystepError:
                raise
            except Exception as error:
                raise UsageError(where(error, self.path)) from error
            if not isinstance(method, Method):
                raise UsageError(f"{self.path}: a family gave {method!r:.60} for a method; write {SHAPE}.")
            return replace(method, body=_guarded_body(method.body, self.path))

        return guarded


def methods_file(path: str | Path) -> MethodsFile:
    """Read a file of methods. Raises UsageError, with file and line, where it cannot be imported or says odd things."""
    path = Path(path)
    module = own_file(path)
    families, rewards = _table(module, "METHODS", path), _table(module, "REWARDS", path)
    made = {
        name: make
        for name, make in vars(module).items()
        if callable(make)
        and getattr(make, "__module__", None) == module.__name__
        and inspect.isgeneratorfunction(getattr(make, "__wrapped__", None))
    }
    return MethodsFile(path, families, made, rewards, source_digest(module))


def _table(module: ModuleType, name: str, path: Path) -> dict[str, Any]:
    found = getattr(module, name, {})
    if not isinstance(found, dict) or not all(isinstance(k, str) and callable(v) for k, v in found.items()):
        raise UsageError(f"{path}: {name} maps labels to functions; write {SHAPE}.")
    return found


def _needs_only_n(make: Callable[..., Method]) -> bool:
    options = inspect.signature(make).parameters
    return "n" in options and all(name == "n" or p.default is not p.empty for name, p in options.items())


def _guarded_body(body: Callable[..., Exploring], path: Path) -> Callable[..., Exploring]:
    @functools.wraps(body)
    def guarded(**options: Any) -> Exploring:
        try:
            return (yield from body(**options))
        except AnystepError:
            raise
        except Exception as error:
            raise UsageError(where(error, path)) from error

    return guarded
