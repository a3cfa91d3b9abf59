"""The family of a run as its journal tells it: every state, what it came from, and what it said."""

from __future__ import annotations

from dataclasses import dataclass, field

from anystep.calls import Asked
from anystep.errors import JournalError
from anystep.journal.story import Round, Says, Story
from anystep.process import Scored, Status, Stepped


@dataclass
class Node:
    """A state: its parents' places, who made it, its status and path's log-probability, its error if it failed, its
    answer and text if it is done, and its scores by the names of those who gave them, in order."""

    parents: tuple[int, ...]
    by: str
    status: int
    logp: float
    error: str | None = None
    answer: str | None = None
    text: str | None = None
    scores: dict[str, float] = field(default_factory=dict)


def family(story: Story) -> list[Node]:
    """Every state, parents before children. Raises JournalError where a round tells of a state that is not there."""
    nodes: list[Node] = []
    for one in story.counted():
        _enter(nodes, one, f"{story.path}")
    return nodes


def best(nodes: list[Node]) -> Node | None:
    """The most promising finished state: by its last score, where any has one, else the likeliest."""
    done = [node for node in nodes if node.status == Status.DONE]
    judged = [node for node in done if any(s == s for s in node.scores.values())]
    if judged:
        return max(judged, key=lambda node: next(s for s in reversed(node.scores.values()) if s == s))
    return max(done, key=lambda node: node.logp, default=None)


def _enter(nodes: list[Node], one: Round, path: str) -> None:
    for asked, reply, says in zip(one.told.asked, one.told.replies, one.says, strict=True):
        if any(i >= len(nodes) for i in asked.ids):
            raise JournalError(f"{path}: a round tells of a state that was never made.")
        if isinstance(reply, Scored):
            if len(asked.ids) != len(reply.values):
                raise JournalError(f"{path}: {len(reply.values)} scores for {len(asked.ids)} states.")
            for i, value in zip(asked.ids, reply.values.tolist(), strict=True):
                nodes[i].scores[asked.by] = value
        else:
            _born(nodes, asked, reply, says, path)


def _born(nodes: list[Node], asked: Asked, reply: Stepped, says: Says, path: str) -> None:
    rows = range(len(reply.status))
    places = [int(p) for p in reply.parent] if reply.parent is not None else list(rows)
    if asked.verb in ("step", "expand") and any(p >= len(asked.ids) for p in places):
        raise JournalError(f"{path}: a state has a parent that was never asked.")
    for row in rows:
        parents = asked.ids if asked.verb in ("start", "fuse") else (asked.ids[places[row]],)
        answer, text = says.get(row, (None, None))
        logp = float(reply.logp[row]) + (nodes[parents[0]].logp if asked.verb in ("step", "expand") else 0.0)
        nodes.append(Node(parents, asked.by, int(reply.status[row]), logp, reply.errors.get(row), answer, text))
