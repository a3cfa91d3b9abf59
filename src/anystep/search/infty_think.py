"""InftyThink: reason in rounds of bounded length, each begun from the question and a summary of all before it."""

from __future__ import annotations

from anystep.procedure import ByProcess, Count, Exploring, procedure, start, step
from anystep.search import decide


@procedure(decide=decide.majority)
def infty_think(restart: ByProcess, rounds: Count = 10, n: Count = 1) -> Exploring:
    """n lines of reasoning, each of at most `rounds` rounds: a round runs to its end, and `restart` begins the next.

    restart: a process on the same states. Of a round that concluded it makes a done state, which answers; of one that
    ended in a summary a live state that holds the question and this summary and nothing else; of one that was cut
    before its summary a live state that holds what that round had begun from, so that the round is drawn again. Each of
    these is a round of the `rounds`; a line that has not concluded by then gives no answer. On language states that is
    `language.rounds.Restart`.

    Preserves nothing of the process's law over whole traces: what a round knows of the earlier ones is the summary. A
    state is never longer than question, summary and one round's output, whatever the length of the reasoning, so where
    the summaries' length is bounded the positions attended to grow linearly with it. Decision: the majority of n.
    Source: Yan et al., "InftyThink: Breaking the Length Limits of Long-Context Reasoning in Large Language Models"
    (2025), arXiv 2503.06692.
    """
    going = yield from start(n)
    ended = []
    for _ in range(rounds):
        said = yield from step(going, until="done", draft=True)
        ended.append(said.take(said.failed))
        begun = yield from step(said.take(~said.failed).reopened(), by=restart)
        ended.append(begun.take(~begun.live))
        going = begun.take(begun.live)
        if not len(going):
            break
    return ended[0].join(*ended[1:], going)
