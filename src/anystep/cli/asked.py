"""What a comparison was asked for: options as plain values that a store can keep, and the comparison they mean."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from anystep.cli import options as o
from anystep.errors import UsageError

if TYPE_CHECKING:
    from anystep.bench import Comparison, Entry, Progress
    from anystep.naming import Asks
    from anystep.tasks import Data, Task

NS = "1,4,16,64"
ITEMS = 50
_FLAGS = {"methods": "method", "seeds": "seed"}  # options that are repeated


@dataclass(frozen=True)
class Asked:
    """The options of `anystep compare` that decide what comes out. folder: where its paths are relative to."""

    task: str | None = None
    data: str | None = None
    scorer: str | None = None
    question_field: str | None = None
    answer_field: str | None = None
    id_field: str | None = None
    choices_field: str | None = None
    template: str | None = None
    extract: str | None = None
    methods: tuple[str, ...] = ()
    methods_file: str | None = None
    ns: str = NS
    items: int | None = None
    model: str = "smollm2-135m"
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    prices: str | None = None
    concurrency: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    calls: int | None = None
    money: float | None = None
    seeds: tuple[int, ...] = (0,)
    rows: int = 1024
    folder: str = field(default="", compare=False)

    def record(self) -> dict[str, Any]:
        """As JSON can hold it, without what is secret."""
        return {**asdict(self), "model": public(self.model)}

    @classmethod
    def of(cls, record: Any) -> Asked:
        """The inverse of `record`; UsageError for anything else."""
        known = {f.name for f in fields(cls)}
        if not isinstance(record, dict) or not set(record) <= known:
            raise UsageError("this store does not say what it was asked for; give the options again.")
        lists = {name: tuple(record.get(name, ())) for name in ("methods", "seeds")}
        return cls(**{**record, **lists})

    def command(self) -> str:
        """The command that asks for the same."""
        plain = Asked()
        words = ["anystep", "compare"]
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "folder" or value == getattr(plain, f.name):
                continue
            flag = "--" + _FLAGS.get(f.name, f.name).replace("_", "-")
            for one in value if isinstance(value, tuple) else (value,):
                words += [flag, public(one) if f.name == "model" else str(one)]
        return shlex.join(words)

    def code(self) -> dict[str, str]:
        """The options that name Python code of the user's own."""
        found = {name: value for name in ("scorer", "extract") if (value := getattr(self, name)) is not None}
        found = {name: value for name, value in found.items() if value.startswith("python:")}
        if self.methods_file is not None:
            found["methods_file"] = self.methods_file
        own = [text for text in self.methods if ".py:" in text]
        return found | ({"methods": own[0]} if own else {})

    def at(self, path: str) -> Path:
        """A path as it was meant where it was given."""
        found = Path(path).expanduser()
        return found if self.folder == os.getcwd() else Path(self.folder, found)


def public(model: str) -> str:
    """A model's name without what a URL may hold of passwords and keys."""
    if not model.startswith(("http://", "https://")):
        return model
    parts = urlsplit(model)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


def problems(asked: Asked) -> tuple[list[Task], Data | None]:
    """The problems, and the data they come from where they are one's own. Raises UsageError for two sources or none."""
    from anystep import tasks

    if (asked.task is None) == (asked.data is None):
        both = "are two sources of problems" if asked.task else "are missing"
        raise UsageError(f"--task and --data {both}; call anystep compare --data problems.jsonl --scorer numeric.")
    if asked.items is not None and asked.items < 1:
        raise UsageError(f"--items {asked.items}: 1 or more, as in --items 50.")
    if asked.data is not None:
        data = tasks.load_data(
            asked.at(asked.data),
            _placed(asked, asked.scorer or "exact"),
            question=asked.question_field,
            answer=asked.answer_field,
            id=asked.id_field,
            choices=asked.choices_field,
            template=asked.template,
            extract=asked.extract and _placed(asked, asked.extract),
            most=asked.items,
        )
        return list(data.tasks), data
    for name in ("scorer", "question_field", "answer_field", "id_field", "choices_field", "template", "extract"):
        if getattr(asked, name) is not None:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} is for problems of your own: call anystep compare --data FILE --{flag} ...")
    items = ITEMS if asked.items is None else asked.items
    if items > o.MOST_ITEMS:
        call = f"anystep compare --task {asked.task} --items 50"
        raise UsageError(f"--items {items}: at most {o.MOST_ITEMS:,}; call {call}.")
    return tasks.load(str(asked.task), items), None


def comparison(asked: Asked, progress: Callable[[Progress], None], said: Callable[[str], None]) -> Comparison:
    """The comparison that was asked for. said: called with each line that is worth saying before it begins."""
    from anystep.bench import Comparison
    from anystep.solve import asks, process_for

    limit = o.budget(asked.tokens, asked.seconds, asked.calls, asked.money)
    if asked.rows < 1:
        raise UsageError(f"--rows {asked.rows}: 1 or more, as in --rows 1024.")
    entries = entries_of(asked, lambda name: asks(engine)(name))  # the engine comes last: it takes long
    tasks, data = problems(asked)
    notes = told(data) if data else []
    for line in notes:
        said(line)
    every = {} if asked.max_tokens is None else {"max_tokens": asked.max_tokens}
    warm = {k: v for k in ("temperature", "top_p") if (v := getattr(asked, k)) is not None}
    engine = engine_of(asked)
    same = {k: str(v) for k, v in {**every, **warm}.items()}
    same |= {"model": urlsplit(asked.model).fragment or public(asked.model)}  # a named one may be served elsewhere
    same |= {"task": asked.task} if asked.task else {"scorer": data.grader.key if data else ""}
    return Comparison(
        entries,
        tasks,
        lambda t, greedy: process_for(t, engine, **every, **({"temperature": 0.0} if greedy else warm)),
        seeds=asked.seeds,
        budget=limit,
        rows=asked.rows,
        progress=progress,
        title=f"{public(asked.model)} on {data.name if data else asked.task}",
        model=public(asked.model),
        task=data.name if data else str(asked.task),
        same={**same, **_weights(asked.model)},
        notes=notes,
        command=asked.command(),
    )


def told(data: Data) -> list[str]:
    """What was read of the data, and what was wrong with it by line."""
    fields = f"question from {'/'.join(data.fields.question)}, answer from {'/'.join(data.fields.answer) or 'nothing'}"
    left = sum("left out" in f.text for f in data.flaws)
    counts = f"{len(data.tasks):,} problems ({fields}), {left:,} left out, {data.unanswered:,} without an answer"
    return [f"{data.name}: {counts}", *data.told()]


def entries_of(asked: Asked, asks: Asks | None = None) -> list[Entry]:
    """The methods asked for: named ones, those of files, self-consistency where there is none."""
    from anystep.bench import entry, methods_file

    sizes = sizes_of(asked.ns)
    found = []
    for text in asked.methods:
        path, _, own = text.partition(".py:")
        found.append(
            methods_file(asked.at(f"{path}.py")).entry(own, sizes, asks) if own else entry(text, sizes, asks=asks)
        )
    if asked.methods_file is not None:
        found += methods_file(asked.at(asked.methods_file)).entries(sizes, asks)
    return found or [entry("self_consistency", sizes)]


def engine_of(asked: Asked) -> Any:
    """The model, a served one with its prices and its bound on requests at once."""
    from anystep.cli.engine import engine_for

    if not asked.model.startswith(("http://", "https://")):
        for name in ("prices", "concurrency"):
            if getattr(asked, name) is not None:
                raise UsageError(f"--{name} is for a server: give its address, as in --model http://127.0.0.1:8080/v1.")
        return engine_for(asked.model)
    if asked.prices is None and asked.concurrency is None:
        return engine_for(asked.model)
    from anystep.language.endpoint import Endpoint, Prices

    more: dict[str, Any] = {} if asked.concurrency is None else {"concurrency": asked.concurrency}
    return Endpoint(asked.model, prices=Prices.read(asked.prices) if asked.prices else None, **more)


def sizes_of(ns: str) -> tuple[int, ...]:
    """`1,4,16` as numbers, ascending."""
    try:
        found = tuple(sorted({int(n) for n in ns.split(",")}))
    except ValueError:
        found = ()
    if not found or found[0] < 1:
        raise UsageError(f"--ns {ns!r} are no sizes; give whole numbers, 1 or more, as in --ns {NS}.")
    return found


def texts_of(method: list[str] | None, methods: str | None) -> tuple[str, ...]:
    """The methods asked for, in order and once each; greedy is always there."""
    given = [*(method or []), *(methods.split(";") if methods else [])]
    texts = tuple(dict.fromkeys(text.strip() for text in given))
    if "" in texts:
        raise UsageError('a method is empty; give --methods "self_consistency; best_of_n(reward=equations)".')
    return texts


def _placed(asked: Asked, name: str) -> str:
    """`python:path/to/file.py:function` with its path as it was meant."""
    target = name.removeprefix("python:")
    path, colon, function = target.rpartition(":")
    return f"python:{asked.at(path)}:{function}" if target != name and colon and path.endswith(".py") else name


def _weights(model: str) -> dict[str, str]:
    """What tells a model file from another of the same name."""
    path = Path(model).expanduser()
    if not path.exists():
        return {}
    if path.is_dir():
        files = sorted((f.name, f.stat().st_size) for f in path.iterdir() if f.is_file())
        return {"weights": hashlib.sha256(repr(files).encode()).hexdigest()[:16]}
    with path.open("rb") as file:
        return {"weights": hashlib.file_digest(file, "sha256").hexdigest()[:16]}
