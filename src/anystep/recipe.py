"""What it takes to make a run again by names: a journal's head keeps it, and `resume` reads it in a fresh process.

Only options that are known to be settings are written down, so no key or password of a caller's can be among them.
What cannot be named (a process or method of one's own, a function) is listed as lacking, for the caller to hand in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from anystep.errors import JournalError, UsageError
from anystep.tasks.task import Task

SETTINGS = ("unit", "stop", "end", "temperature", "top_p", "max_tokens", "at_cap", "chat", "logprobs", "n", "speculate")
MOST_ITEMS = 10_000  # a task's items are drawn one after the other, so a far one takes as long as all before it
HUB = re.compile(r"[\w.-]+/[\w.-]+")  # owner/name, which is fetched where it is no folder
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def recipe(
    task: Any, model: Any, method: Any, options: Mapping[str, Any], named: tuple[str, int] | None = None
) -> dict[str, Any]:
    """The recipe of a run. named: the name and the index of a task that `tasks.load` can find again."""
    found: dict[str, Any] = {}
    if named is not None:
        found["task"] = {"name": named[0], "item": named[1]}
    elif isinstance(task, str):
        found["task"] = {"question": task}
    elif not isinstance(task, Task) and _plain(task):
        found["task"] = {"messages": list(task)}
    if isinstance(model, str):
        found["model"] = without_secrets(model)
    if isinstance(method, str):
        found["method"] = method
    settings = {k: v for k, v in options.items() if k in SETTINGS and _plain(v)}
    lacking = [k for k in ("task", "model", "method") if k not in found] + sorted(set(options) - set(settings))
    return found | {"options": settings, "lacking": lacking}


@dataclass(frozen=True)
class Recipe:
    """A recipe as it was read: None for what was not named."""

    task: str | list[dict[str, Any]] | tuple[str, int] | None = None
    model: str | None = None
    method: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    lacking: tuple[str, ...] = ("task", "model", "method")


def read(record: Any, path: Path) -> Recipe:
    """The recipe in a journal's head; an empty one where it has none. Raises JournalError for what is no recipe."""
    if record is None:
        return Recipe()
    wrong = JournalError(f"{path}, line 1: a recipe that anystep did not write.")
    if not isinstance(record, dict):
        raise wrong
    model, method = record.get("model"), record.get("method")
    options, lacking = record.get("options"), record.get("lacking")
    texts = all(x is None or isinstance(x, str) for x in (model, method))
    if not texts or not isinstance(options, dict) or not set(options) <= set(SETTINGS):
        raise wrong
    if not isinstance(lacking, list) or not all(isinstance(x, str) for x in lacking):
        raise wrong
    found = Recipe(_task(record.get("task"), wrong), model, method, options, tuple(lacking))
    if any(getattr(found, what) is None and what not in lacking for what in ("task", "model", "method")):
        raise wrong
    return found


def _task(record: Any, wrong: JournalError) -> Any:
    match record:
        case None:
            return None
        case {"question": str(question)}:
            return question
        case {"name": str(name), "item": int(item)} if 0 <= item < MOST_ITEMS:
            return name, item
        case {"messages": list(messages)} if all(isinstance(m, dict) for m in messages):
            return messages
    raise wrong


def without_secrets(model: str) -> str:
    """A model's name; of an address only where it is and the model there: neither user, password nor query."""
    if "://" not in model:
        return model
    parts = urlsplit(model)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", parts.fragment))


def trusted(model: str, path: Path) -> str:
    """The model a journal names. UsageError for one that stands elsewhere, for a journal may come from anyone: a server
    would be sent the question, and perhaps a key, and a hub's model would be fetched; whoever resumes has to name it.
    """
    said = f"if it is yours, say so: --model {model!r:.200}."
    if "://" in model:
        try:
            here = urlsplit(model).hostname in LOOPBACK
        except ValueError:
            here = False
        if not here:
            raise UsageError(f"{path} asks the server {model!r:.200}; {said}")
    elif HUB.fullmatch(model) and not Path(model).expanduser().exists():
        raise UsageError(f"{path} asks for {model!r:.200} from the Hugging Face hub; {said}")
    return model


def _plain(value: Any) -> bool:
    """Whether JSON holds a value as it is."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return True
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _plain(v) for k, v in value.items())
    return isinstance(value, Sequence) and all(map(_plain, value))
