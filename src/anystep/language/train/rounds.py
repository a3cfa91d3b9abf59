"""Long traces rewritten as rounds, each a bounded segment and a summary of all that came before; and small models that
learn to reason in them, with their twins that do not.

The converter is of the paper's kind, with one difference: a segment is closed *before* the step that would overshoot
it is added. Source: Yan et al., "InftyThink: Breaking the Length Limits of Long-Context Reasoning in Large Language
Models" (2025), arXiv 2503.06692.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Literal

from anystep.errors import UsageError
from anystep.language.engine.llama import Config, Llama
from anystep.language.rounds import Terse
from anystep.language.train import checkpoint
from anystep.language.train.chainlm import Cost, shape, untrained
from anystep.language.train.tune import Pair, Tuning, kept, tune
from anystep.tasks import iterate
from anystep.tasks.chains import CHAIN_END, STEP_END, Alphabet
from anystep.tasks.iterate import Iteration

WINDOW = 128
CONTEXT = 2048  # positions that the engine allows, so that the twin may try: none beyond the window is trained
Form = Literal["summary", "window"]
FORMS: tuple[Form, ...] = ("summary", "window")


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
    """Everything that decides the model. Chains of up to 99 steps are written down and rewritten as `form`:

    summary: rounds of at most `segment` tokens, with summaries of how many steps are left and the value reached.
    window: the monolithic twin: whole chains where they fit into the window, else what the window shows of them as it
        slides, behind the question: the same segments, each with the step before it.

    First `tokens` of `traces` chains of any length, in which the map is learned; then `more` of `counted` chains whose
    lengths are multiples of `every`, in which what is in a summary counts `emphasis` times as much and so does an end,
    for they are few among many other tokens: in this part counting is learned. Tokens are padded ones, so that both
    forms train on as many. The context is `WINDOW` for both.
    """

    form: Form = "summary"
    size: str = "1m"
    seed: int = 0
    segment: int = 91
    traces: int = 6_000
    tokens: int = 2_400_000
    counted: int = 3_000
    more: int = 400_000
    every: int = 7
    emphasis: float = 10.0


LIKE = Iteration(3, 7, 17, 20)  # how a form writes it down is in the hash: a changed notation never meets an old model


def left_and_value(problem: Iteration, before: str | None, segment: Sequence[str]) -> str:
    """A cumulative summary: the steps still to take, from how many there were before it, and the value reached."""
    left = problem.times if before is None else int(before.split(",")[0])
    return f"{left - len(segment):02d},{iterate.value_of(segment[-1].strip())}"


@dataclass(frozen=True)
class Counted(Terse):
    """The form of these models: the first round is told that all is left and where to start, `<98,17>`, and the round
    that leaves nothing is the last."""

    def prompt(self, question: str, summary: str | None) -> str:
        problem = iterate.read(question)
        return f"{question}<{summary or f'{problem.times:02d},{problem.value:02d}'}>"

    def concluded(self, said: str) -> bool:
        return iterate.concluded(said) is not None


def rounds_of(problem: Iteration, segment: int) -> list[Pair]:
    """One chain as a pair a round."""
    parts = [step + STEP_END for step in problem.steps()]
    parts[-1] += f"<00,{iterate.value_of(problem.steps()[-1])}>"
    pairs = converted(
        str(problem),
        parts,
        segment,
        lambda before, some: left_and_value(problem, before, some),
        length=lambda part: len(part.partition("<")[0]),
    )
    return [(Counted().prompt(pairs[0][0], None), pairs[0][1]), *pairs[1:]]


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


def plain_rounds_of(problem: Iteration, segment: int) -> list[Pair]:
    """One chain as the first part has it: nothing is told to the first round, and the last ends in the full stop."""
    *steps, last = problem.steps()
    parts = [*(step + STEP_END for step in steps), last + CHAIN_END]
    return converted(str(problem), parts, segment, lambda before, some: left_and_value(problem, before, some))


def pairs_of(problem: Iteration, form: Form, segment: int) -> list[Pair]:
    """One chain as training pairs, none of them longer than the window."""
    return windows_of(problem, segment) if form == "window" else rounds_of(problem, segment)


def examples(recipe: RoundsRecipe) -> list[Pair]:
    """The pairs of the first part."""
    stream = islice(iterate.problems("train", Random(recipe.seed)), recipe.traces)
    return [pair for problem in stream for pair in first_pairs_of(problem, recipe)]


def first_pairs_of(problem: Iteration, recipe: RoundsRecipe) -> list[Pair]:
    if recipe.form == "window":
        return windows_of(problem, recipe.segment)
    return plain_rounds_of(problem, recipe.segment)


def counting(recipe: RoundsRecipe) -> list[Pair]:
    """The pairs of the second part."""
    stream = islice(iterate.problems("train", Random(recipe.seed + 7), every=recipe.every), recipe.counted)
    return [pair for problem in stream for pair in pairs_of(problem, recipe.form, recipe.segment)]


def train(recipe: RoundsRecipe, say: Callable[[str], None] = print) -> tuple[Llama, Cost]:
    """The trained model and what it cost."""
    if recipe.form not in FORMS:
        raise UsageError(f"RoundsRecipe(form={recipe.form!r}): one of {', '.join(FORMS)}.")
    tensors, card = checkpoint.load(*_whereabouts(begun(recipe, say)))
    model = Llama(card.config)
    model.load_state_dict(tensors)
    first = Cost(**card.cost)
    tuning = Tuning(
        recipe.more,
        batch=16,
        matrix_rate=1e-3,
        other_rate=1e-3,
        seed=recipe.seed + 9,
        emphasis={CHAIN_END: recipe.emphasis, "<": 3.0, STEP_END: 3.0},
        between=("<", ">", recipe.emphasis),
    )
    then = tune(model, Alphabet(), counting(recipe), tuning, say)
    whole = {name: getattr(first, name) + getattr(then, name) for name in vars(first)}
    return model.eval(), Cost(**whole)


def begun(recipe: RoundsRecipe, say: Callable[[str], None] = print) -> Path:
    """The card of the model after the first part; kept."""
    told = {
        name: value for name, value in asdict(recipe).items() if name in ("size", "seed", "segment", "traces", "tokens")
    }

    def make() -> tuple[Llama, Config, Cost]:
        model = untrained(replace(shape(recipe.size), context=CONTEXT), recipe.seed)
        tuning = replace(Tuning.fresh(recipe.tokens, recipe.seed + 1), batch=64)
        cost = tune(model, Alphabet(), examples(recipe), tuning, say)
        return model.eval(), model.config, cost

    return kept(
        f"rounds-begun-{recipe.form}", {**told, "form": recipe.form, "like": first_pairs_of(LIKE, recipe)}, make
    )


def trained(recipe: RoundsRecipe | None = None, say: Callable[[str], None] = print) -> Path:
    """The card of the trained model, which `language.load` takes; trained once, then kept by the hash of its recipe."""
    recipe = recipe or RoundsRecipe()

    def make() -> tuple[Llama, Config, Cost]:
        model, cost = train(recipe, say)
        return model, model.config, cost

    return kept(f"rounds-{recipe.form}", {**asdict(recipe), "like": pairs_of(LIKE, recipe.form, recipe.segment)}, make)


def _whereabouts(card: Path) -> tuple[str, Path]:
    return card.stem, card.parent
