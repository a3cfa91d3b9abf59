"""Adaptive prompting: a step that fails its check is taken again under a prompt that gives more guidance."""

from __future__ import annotations

from typing import Annotated, Any

from anystep.population import Population
from anystep.procedure import ByReward, Count, Exploring, Flag, Rule, Share, procedure, score, start, step
from anystep.process import Process
from anystep.search import decide


def _processes(found: Any) -> bool:
    return isinstance(found, tuple) and bool(found) and all(isinstance(each, Process) for each in found)


Templates = Annotated[
    tuple[Process, ...], Rule("processes in a tuple, such as language.reprompting(process, prompts)", _processes)
]


@procedure(decide=decide.first_finished, needs_end=True)
def adaptive_prompt(
    templates: Templates,
    check: ByReward | None = None,
    tries: Count = 1,
    threshold: Share = 0.5,
    relax: Flag = False,
) -> Exploring:
    """One chain, step by step. A step that `check` scores below `threshold` is struck out, and taken again under the
    next template; under the last one, up to `tries` times. The steps that passed are kept under every template.

    templates: from the briefest to the one with the most guidance; each is a process on the same states whose step puts
    a state under its template and computes nothing, as `language.reprompting` makes them. Where every attempt failed,
    the one under the last template that scored best stands, of equal ones the later, and the chain goes on from it.
    relax: whether the next step begins under the first template again, and not under the one of the last attempt.
    Without a check every step stands, and the first template is never left.

    Preserves nothing: each template asks for another distribution, and what fails is drawn again. With one template and
    no check it is one sample under that template. A chain whose every step passed may be wrong all the same.
    Source: Kamesh, "Think Beyond Size: Adaptive Prompting for More Effective Reasoning" (2024), arXiv 2410.08130; the
    rule of escalation is reconstructed from its abstract.
    """
    chain = yield from start(1)
    level, last = 0, len(templates) - 1
    while chain.live.any():
        attempts: list[tuple[float, int, Population]] = []
        for at in (*range(level, last), *(last,) * tries):
            told = yield from step(chain, by=templates[at])
            taken = (yield from step(told)) if told.live.any() else told
            worth = float("-inf")
            if not taken.failed.any():
                worth = 1.0 if check is None else float((yield from score(taken, check))[0])
            attempts.append((worth, len(attempts), taken))
            if not worth < threshold:  # also where it could not be scored
                break
        chain = (attempts[-1] if not worth < threshold else max(attempts[-tries:]))[-1]
        level = 0 if relax else at
    return chain
