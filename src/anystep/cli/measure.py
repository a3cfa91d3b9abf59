"""`anystep measure`: how fast the engine runs on this machine, beside the fastest that it could."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anystep.cli import options as o
from anystep.errors import UsageError

if TYPE_CHECKING:
    from anystep.language.measure import Forks, Report
    from anystep.language.measure.engine import Spent
    from anystep.language.threads import Choice

EXAMPLE = "anystep measure engine"
MOST = 4096  # rows and new tokens: more would take hours


def measure(
    what: Annotated[str, typer.Argument(help="What to measure: engine.")],
    model: Annotated[
        str, typer.Option(help="A name that `anystep models` lists, a .gguf file, a folder or a Hugging Face id.")
    ] = "smollm2-135m",
    weights: Annotated[
        str, typer.Option(help="How weights are stored: auto, fp32, fp16, bf16, int8 or int4.")
    ] = "auto",
    forks: Annotated[str, typer.Option(help="How many forks of the prompt, with commas between.")] = "1,8,32,64",
    prompt: Annotated[int, typer.Option(help="Tokens of the prompt.")] = 500,
    new: Annotated[int, typer.Option(help="New tokens of each fork.")] = 16,
    threads: Annotated[int | None, typer.Option(help="Threads for torch; found out where left out.")] = None,
    as_json: o.AsJson = False,
    debug: o.Debug = False,
    quiet: o.Quiet = False,
) -> None:
    """Measure the engine: time, bytes and operations a step at several forks of one prompt, and the machine's limit.

    The limit of a step is the longer of two times: to read its bytes, and to multiply its numbers, at the rates that
    this machine was just seen to reach. Another program's work makes times longer; CPU time shows it least.
    """
    if what != "engine":
        raise UsageError(f"there is nothing to measure by the name of {what!r}; call {EXAMPLE}.")
    rows = counts(forks)
    if threads is not None and threads < 1:
        raise UsageError(f"--threads {threads}: 1 or more; call {EXAMPLE} --threads 1.")
    if new > MOST:
        raise UsageError(f"--new {new}: at most {MOST:,}; call {EXAMPLE} --new 16.")
    if model.startswith(("http://", "https://")):
        raise UsageError(f"a server cannot be measured from outside; call {EXAMPLE} --model smollm2-135m.")
    from anystep.language import load
    from anystep.language.measure import measure_engine
    from anystep.language.measure.memory import forget_peak, resident
    from anystep.language.threads import Choice, settle, use
    from anystep.view import printable

    def say(line: str) -> None:
        if not quiet:
            print(printable(line), file=sys.stderr, flush=True)

    choice = settle() if threads is None else use(Choice(threads, "--threads says so"))
    before = resident() if forget_peak() else {}
    engine = load(model, weights, say=say)
    loaded = resident() if before else {}
    memory = {"loaded": loaded["own"] - before["own"], "peak": loaded["peak"] - before["now"]} if loaded else {}
    report = measure_engine(engine, rows, prompt, new, say=say)
    if as_json:
        print(json.dumps(record(report, choice, weights, memory), indent=2))
    else:
        print(printable(told(report, choice, weights, memory)))


def counts(text: str) -> list[int]:
    """`1,8,32` as numbers. UsageError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= MOST for part in parts):
        raise UsageError(f"--forks {text!r}: numbers from 1 to {MOST:,} with commas between, as in --forks 1,8,32.")
    return sorted({int(part) for part in parts})


def record(report: Report, choice: Choice, weights: str, memory: dict[str, int]) -> dict[str, Any]:
    """Everything that was measured, and what follows from it, as JSON: seconds, bytes and operations."""
    from anystep.bench.machine import hardware, today, versions

    threads = report.machine.threads
    rows = [
        {
            **asdict(forks),
            "bytes": forks.bytes,
            "seconds_a_step": forks.step.seconds(threads),
            "tokens_per_second": forks.tokens_per_second(threads),
            "reached": forks.reached(threads),
            "reached4": forks.reached4(threads),
            "cache_ratio": forks.cache_ratio,
        }
        for forks in report.forks
    ]
    about = {"when": today(), "hardware": hardware(), "versions": versions(), "weights": weights, "memory": memory}
    return {**asdict(report), **about, "threads": asdict(choice), "forks": rows}


def told(report: Report, choice: Choice, weights: str, memory: dict[str, int]) -> str:
    """A report as text: the model, the machine, then a line for each number of forks."""
    from anystep.view import text_table

    threads = report.machine.threads
    clock = "CPU time" if threads == 1 else "wall time"
    speed = report.prompt / report.prefill.seconds(threads)
    loading = (
        f"; loading added {size(memory['loaded'])} to the process, {size(memory['peak'])} at its peak" if memory else ""
    )
    lines = [
        f"{report.model}, weights {weights}, {threads} thread{'s' if threads > 1 else ''} ({choice.why}), "
        f"load {report.load:.1f}",
        f"weights: {size(report.held)} held, {size(report.packed)} read in a pass "
        f"({report.held / report.packed:.2f} times){loading}",
        f"prompt of {report.prompt}: first token after {span(report.first, threads)} of {clock}, prefill {speed:,.0f} "
        "tokens a second",
        *machine_lines(report),
        "",
        text_table([*HEADS, f"ms a step ({clock})", *LIMITS, *WORK], [row(forks, report) for forks in report.forks]),
        "",
        f"limit: the longer of reading a step's bytes and doing its products; reached: its share of the {clock}; "
        "4-bit: the limit of Q4_1 weights in this machine's fastest arithmetic; Mop: million multiplies and adds; "
        "operators: torch calls a step; cache: of the prompt and of all forks beyond it, and both without the forks' "
        "own new tokens, as multiples of the prompt's.",
    ]
    return "\n".join(lines)


HEADS = ["forks", "tokens/s", "wall ms"]
LIMITS = ["limit ms", "by", "reached", "4-bit ms", "reached"]
WORK = ["MB a token", "Mop a token", "operators", "cache MB", "cache"]


def row(forks: Forks, report: Report) -> list[str]:
    threads = report.machine.threads
    ratio = f"{forks.shared / 1e6:.0f} + {forks.own / 1e6:.0f}"
    return [
        f"{forks.rows}",
        f"{forks.tokens_per_second(threads):,.0f}",
        f"{1e3 * middle(forks.step.wall):.1f}",
        spread(forks.step.cpu if threads == 1 else forks.step.wall),
        f"{1e3 * forks.limit:.1f}",
        forks.decided_by,
        f"{forks.reached(threads):.0%}",
        f"{1e3 * forks.limit4:.1f}",
        f"{forks.reached4(threads):.0%}",
        f"{forks.bytes / forks.rows / 1e6:.1f}",
        f"{sum(forks.operations.values()) / forks.rows / 1e6:.0f}",
        f"{forks.operators:,}",
        ratio,
        f"{forks.cache_ratio:.2f}x",
    ]


def machine_lines(report: Report) -> list[str]:
    """What the machine reached: bytes a second by working set, and products by arithmetic and rows."""
    machine = report.machine
    read = ", ".join(f"{rate / 1e9:.1f} of {size(known)}" for known, rate in machine.bandwidth.items())
    lines = [f"memory, GB read a second: {read}"]
    for kind, rates in machine.rates.items():
        each = ", ".join(f"{rate / 1e9:.0f} at {rows}" for rows, rate in rates.items())
        lines.append(f"{kind} products, Gop a second by rows: {each}")
    return lines


def middle(values: tuple[float, ...]) -> float:
    from statistics import median

    return median(values)


def spread(values: tuple[float, ...]) -> str:
    """The median in milliseconds, and from least to most."""
    return f"{1e3 * middle(values):.1f} ({1e3 * min(values):.1f} to {1e3 * max(values):.1f})"


def span(spent: Spent, threads: int) -> str:
    return f"{spent.seconds(threads):.2f} s"


def size(count: float) -> str:
    """Bytes as people read them."""
    return f"{count / 1e6:,.0f} MB" if count >= 9.5e5 else f"{count / 1e3:,.0f} kB"
