"""Long traces rewritten as rounds, each a bounded segment and a summary of all that came before; and small models that
learn to reason in them, with their twins that do not.

The converter is of the paper's kind, with one difference: a segment is closed *before* the step that would overshoot
it is added. Source: Yan et al., "InftyThink: Breaking the Length Limits of Long-Context Reasoning in Large Language
Models" (2025), arXiv 2503.06692.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Literal

from anystep.errors import UsageError
from anystep.language.engine.llama import Config, Llama
from anystep.language.train.chainlm import Cost, shape, untrained
from anystep.language.train.tune import Pair, Tuning, kept, tune
from anystep.tasks import iterate
from anystep.tasks.chains import CHAIN_END, STEP_END, Alphabet
from anystep.tasks.iterate import Iteration

WINDOW = 128
CONTEXT = 2048  # positions that the engine allows, so that the twin may try: none beyond the window is trained
Form = Literal["summary", "last", "cut", "window"]
FORMS: tuple[Form, ...] = ("summary", "last", "cut", "window")


def paragraphs(trace: str) -> list[str]:
    """A trace of prose cut at its blank lines; a paragraph that does not begin with an upper-case letter goes on with
    the one before, as a formula or the end of a sentence does."""
    found: list[str] = []
    for part in re.split(r"\n\s*\n", trace.strip()):
        if found and not part[:1].isupper():
            found[-1] += "\n\n" + part
        else:
            found.append(part)
    return found


def packed(parts: Sequence[str], most: int, length: Callable[[str], int] = len) -> list[list[str]]:
    """Parts in order, as many to a segment as fit in `most` by `length`; a part longer than that stands alone.

    UsageError for no parts and for a `most` below 1.
    """
    if not parts or most < 1:
        raise UsageError(f"packed({len(parts)} parts, most={most}): give parts, and room for them, such as most=4096.")
    segments: list[list[str]] = [[]]
    room = most
    for part in parts:
        size = length(part)
        if size > room and segments[-1]:
            segments.append([])
            room = most
        segments[-1].append(part)
        room -= size
    return segments


def converted(
    question: str,
    parts: Sequence[str],
    most: int,
    summary: Callable[[str | None, Sequence[str]], str],
    length: Callable[[str], int] = len,
    close: tuple[str, str] = ("<", ">"),
) -> list[Pair]:
    """A trace as one (input, output) a round: question -> segment, summary; question, summary -> segment, summary; ...;
    question, summary -> the last segment, which ends as the trace does.

    summary: the new summary from the one before (None in the first round) and the segment, S = f(S before, segment):
    at use no model sees more. A trace that fits in one segment stays as it is. close: what stands around a summary.
    """
    pairs, before = list[Pair](), None
    segments = packed(parts, most, length)
    for i, segment in enumerate(segments):
        prompt = question if before is None else question + close[0] + before + close[1]
        if i == len(segments) - 1:
            pairs.append((prompt, "".join(segment)))
            break
        before = summary(before, segment)
        pairs.append((prompt, "".join(segment) + close[0] + before + close[1]))
    return pairs


@dataclass(frozen=True)
class RoundsRecipe:
    """Everything that decides the model. `traces` chains of 1 to 99 steps are written down and rewritten as `form`:

    summary: rounds of at most `segment` tokens, with summaries of how many steps are left and the value reached.
    last: the same, but a summary tells of its own segment alone: how many steps it took, and the value.
    cut: truncation: rounds that begin with the question and the last step of the round before, word for word.
    window: the monolithic twin: whole chains where they fit into the window, else what the window shows of them as it
        slides, behind the question: the segments of the other forms, each with the step before it.

    `tokens` counts padded ones, so that all forms train on as many. The context is `WINDOW` for all of them.
    """

    form: Form = "summary"
    size: str = "1m"
    seed: int = 0
    traces: int = 6_000
    segment: int = 91
    tokens: int = 2_400_000
    batch: int = 64


def left_and_value(problem: Iteration, before: str | None, segment: Sequence[str]) -> str:
    """A cumulative summary: the steps still to take, from how many there were before it, and the value reached."""
    left = problem.times if before is None else int(before.split(",")[0])
    return f"{left - len(segment):02d},{iterate.value_of(segment[-1].strip())}"


def taken_and_value(problem: Iteration, before: str | None, segment: Sequence[str]) -> str:
    """A summary of the last segment: its steps, whatever came before it, and the value reached."""
    return f"{len(segment):02d},{iterate.value_of(segment[-1].strip())}"


def last_step(problem: Iteration, before: str | None, segment: Sequence[str]) -> str:
    """No summary: the segment's last step as it stands."""
    return segment[-1].strip()


_SUMMARIES: dict[str, Callable[[Iteration, str | None, Sequence[str]], str]] = {
    "summary": left_and_value,
    "last": taken_and_value,
    "cut": last_step,
}


def rounds_of(problem: Iteration, form: Form, segment: int) -> list[Pair]:
    """One chain as training pairs of a form that has rounds."""
    *steps, last = problem.steps()
    parts = [*(step + STEP_END for step in steps), last + CHAIN_END]
    make = _SUMMARIES[form]
    pairs = converted(str(problem), parts, segment, lambda before, some: make(problem, before, some))
    if form == "cut":  # what a round ends with is a mark: its last step is there to be copied by whoever restarts it
        pairs = [(prompt, output.partition("<")[0] + "<>" if "<" in output else output) for prompt, output in pairs]
    return pairs


def windows_of(problem: Iteration, segment: int) -> list[Pair]:
    """A chain as pairs of the twin: its whole where that fits, else a window at each segment's place, of which the step
    before the segment is given."""
    question, steps = str(problem), problem.steps()
    size = len(steps[0]) + 1
    fit, each = (WINDOW - len(question)) // size, segment // size
    if len(steps) <= fit:
        return [(question, problem.chain())]
    pairs = []
    for at in range(0, len(steps), each):
        first = max(at - 1, 0)
        text = STEP_END.join(steps[first : at + each]) + (CHAIN_END if at + each >= len(steps) else STEP_END)
        given = size * (at - first)
        pairs.append((question + text[:given], text[given:]))
    return pairs


def examples(recipe: RoundsRecipe) -> list[Pair]:
    """The recipe's pairs, none of them longer than the window."""
    rng = Random(recipe.seed)
    stream: Iterator[Iteration] = iterate.problems("train", rng)
    pairs: list[Pair] = []
    for _ in range(recipe.traces):
        problem = next(stream)
        chain = windows_of(problem, recipe.segment) if recipe.form == "window" else None
        pairs += rounds_of(problem, recipe.form, recipe.segment) if chain is None else chain
    return pairs


def train(recipe: RoundsRecipe, say: Callable[[str], None] = print) -> tuple[Llama, Cost]:
    """The trained model and what it cost."""
    if recipe.form not in FORMS:
        raise UsageError(f"RoundsRecipe(form={recipe.form!r}): one of {', '.join(FORMS)}.")
    model = untrained(replace(shape(recipe.size), context=CONTEXT), recipe.seed)
    tuning = replace(Tuning.fresh(recipe.tokens, recipe.seed + 1), batch=recipe.batch)
    cost = tune(model, Alphabet(), examples(recipe), tuning, say)
    return model.eval(), cost


def trained(recipe: RoundsRecipe | None = None, say: Callable[[str], None] = print) -> Path:
    """The card of the trained model, which `language.load` takes; trained once, then kept by the hash of its recipe."""
    recipe = recipe or RoundsRecipe()

    def make() -> tuple[Llama, Config, Cost]:
        model, cost = train(recipe, say=say)
        return model, model.config, cost

    like = rounds_like(recipe)
    return kept(f"rounds-{recipe.form}", {**asdict(recipe), "like": like}, make)


def rounds_like(recipe: RoundsRecipe) -> list[Pair]:
    """How the recipe writes one problem down: in the hash, so that a changed notation never meets an old model."""
    problem = Iteration(3, 7, 17, 20)
    if recipe.form == "window":
        return windows_of(problem, recipe.segment)
    return rounds_of(problem, recipe.form, recipe.segment)
