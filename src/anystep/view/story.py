"""A journal on a terminal: what was asked, what was spent, the rounds, the family, and the answer so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from anystep.journal import Node, Story, best, costs_of, family, number
from anystep.ledger import FREE, Cost
from anystep.process import Scored, Status
from anystep.view.tables import text_table
from anystep.view.text import clipped, cost_line, counted, duration, figure, printable

WIDE = 70  # characters of a text in a line


def story_text(story: Story, writing: bool = False, depth: int = 6, rows: int = 24) -> str:
    """The whole view. writing: whether a process is writing the journal now. depth: the deepest generation shown of the
    family. rows: the most lines of the rounds, and of the family."""
    nodes = family(story)
    parts = [
        "\n".join(_facts(story, writing)),
        f"Rounds: {len(story.rounds)} in {duration(story.seconds)}{_lives(story)}",
        text_table(*_rounds(story, rows)) if story.rounds else "",
        f"Family: {_tally(nodes)}",
        "\n".join(_tree(nodes, depth, rows)),
        "\n".join(_conclusion(story, nodes)),
    ]
    return "\n\n".join(printable(part) for part in parts if part)


def story_record(story: Story, writing: bool = False) -> dict[str, Any]:
    """The same as JSON can hold it; numbers that are none are words."""
    nodes = family(story)
    chosen = best(nodes) if story.end is None else None
    total, costs = _spent(story)
    keys = ("process", "method", "decision", "seed", "at", "anystep", "recipe")
    return {
        **{key: story.head[key] for key in keys},
        "path": str(story.path),
        "state": _state(story, writing),
        "budget": story.budget.caps(),
        "cost": _cost(total),
        "costs": {by: _cost(cost) for by, cost in costs.items()},
        "seconds": story.seconds,
        "rounds": [
            {
                "seconds": r.told.seconds,
                "refused": r.told.refused,
                "asked": [{"verb": a.verb, "by": a.by, "states": len(a.ids)} for a in r.told.asked],
            }
            for r in story.rounds
        ],
        "resumed": [{"after": after, "at": life["at"], "budget": life["budget"]} for after, life in story.lives],
        "family": [_node_record(node) for node in nodes],
        "best_so_far": None if chosen is None else chosen.text,
        "end": story.end,
    }


def end_lines(end: Mapping[str, Any], tail: str = "", scored: str = "") -> list[str]:
    """How a run ended, in lines: its answer's support, why it stopped, its note, and what it cost by whom.

    tail: what a state was writing last, for a run in which none has finished. scored: how the answer was scored.
    """
    lines = []
    if end["stopped_because"] == "failed":
        lines.append(f"failed: {end['errors'][0] if end['errors'] else 'nothing was said'}")
    elif end["text"] is None and end["note"].startswith("Abstained"):
        lines.append("no answer: it abstained")
    elif end["text"] is None:
        written = f"; one was writing: {clipped(tail, 200)}" if tail.strip() else ""
        lines.append(f"no answer: nothing has finished{written}")
    if end["stopped_because"] != "failed":
        support = end["support"]
        share = "" if not isinstance(support, float) else f", {100 * support:.0f}% of the votes"
        sure = end.get("confidence")
        share += f", right with probability {sure:.2f}" if isinstance(sure, float) else ""
        value = "" if end["answer"] is None else f"answer {clipped(end['answer'], 60)}{share}; "
        of = f" of {end['started']}" if end["finished"] <= end["started"] else ""  # branches finish too
        lines.append(f"{value}{end['finished']}{of} finished; stopped because {end['stopped_because']}")
        lines += [end["note"]] if end["note"] else []
    lines += [scored] if scored else []
    total, costs = costs_of(end)
    lines.append(f"spent {cost_line(total)}")
    return lines + ([f"  {by}: {cost_line(cost)}" for by, cost in costs.items()] if len(costs) > 1 else [])


def _facts(story: Story, writing: bool) -> list[str]:
    head, recipe = story.head, story.head["recipe"] or {}
    task = recipe.get("task") or {}
    asked = task.get("question") or (f"{task['name']}, item {task['item']}" if "item" in task else "")
    asked = asked or ("chat messages" if "messages" in task else "")
    total, costs = _spent(story)
    caps = story.budget.caps()
    facts = [("journal", f"{story.path}: {_state(story, writing)}")]
    facts += [("asked", clipped(str(asked), 200))] if asked else []
    facts += [("process", f"{head['process']['name']} ({head['process']['kind']})")]
    facts += [("method", f"{head['method']}, deciding by {head['decision']}, seed {head['seed']}")]
    facts += [
        ("budget", ", ".join(f"{figure(getattr(total, n))} of {figure(c)} {n}" for n, c in caps.items()) or "no limit")
    ]
    facts += [("spent", cost_line(total))]
    facts += [(f"  {by}", cost_line(cost)) for by, cost in costs.items()] if len(costs) > 1 else []
    wide = max(len(label) for label, _ in facts)
    return [f"{printable(label):<{wide}}  {clipped(text, 400)}" for label, text in facts]


def _state(story: Story, writing: bool) -> str:
    if story.end is not None:
        reason = story.end["stopped_because"]
        return reason if reason in ("finished", "failed", "cancelled") else f"stopped by {reason}"
    return "being written" if writing else "not finished"


def _spent(story: Story) -> tuple[Cost, dict[str, Cost]]:
    costs = story.costs()
    total = sum(costs.values(), FREE)
    seconds = story.seconds if story.end is None else costs_of(story.end)[0].seconds
    return replace(total, seconds=seconds), costs


def _lives(story: Story) -> str:
    again = counted(len(story.lives), "time")
    return f"; taken up again {again}" if story.lives else ""


def _rounds(story: Story, rows: int) -> tuple[list[str], list[list[str]]]:
    """Heading and rows: the first ones and the last where there are many."""
    table, before = [], 0.0
    for i, one in enumerate(story.rounds, 1):
        what = ", ".join(f"{a.verb} by {a.by}" for a in one.told.asked)
        cost = sum((reply.cost for reply in one.told.replies), FREE)
        came = _came(one.told.replies)
        remark = f"refused: {one.told.refused}" if one.told.refused else "goes on" if one.told.again else ""
        cells = [str(i), f"{max(one.told.seconds - before, 0):.2f}", clipped(what, 40), came]
        table.append([*cells, figure(cost.tokens), figure(cost.calls), clipped(remark, 30)])
        before = one.told.seconds
    if len(table) > rows:
        table = [*table[: rows // 3], ["…"] + [""] * 6, *table[len(table) - (rows - rows // 3 - 1) :]]
    return ["round", "seconds", "asked", "came back", "tokens", "calls", ""], table


def _came(replies: Sequence[Any]) -> str:
    """How many states of each status came back, or scores."""
    scores = sum(len(r.values) for r in replies if isinstance(r, Scored))
    status = [int(s) for r in replies if not isinstance(r, Scored) for s in r.status]
    parts = [f"{status.count(s)} {s.name.lower()}" for s in Status if s in status]
    return ", ".join(parts + ([counted(scores, "score")] if scores else []))


def _tally(nodes: Sequence[Node]) -> str:
    """How many states there are; of those that no other was made from, how many have each status."""
    inner = {parent for node in nodes for parent in node.parents}
    leaves = [node.status for i, node in enumerate(nodes) if i not in inner]
    ends = ", ".join(f"{leaves.count(s)} {s.name.lower()}" for s in Status if s in leaves)
    return counted(len(nodes), "state") + (f"; at the ends {ends}" if ends else "")


def _tree(nodes: Sequence[Node], depth: int, rows: int) -> list[str]:
    """The family by first parents, indented; a line of only children is one line."""
    children: dict[int, list[int]] = {}
    roots: list[int] = []
    for i, node in enumerate(nodes):
        (children.setdefault(node.parents[0], []) if node.parents else roots).append(i)
    lines: list[str] = []
    waiting = [(root, 0) for root in reversed(roots)]
    while waiting:
        if len(lines) >= rows:
            return [*lines, f"… {counted(len(waiting), 'more branch', 'more branches')}; see --rows and --json"]
        i, level = waiting.pop()
        line = [i]
        while len(children.get(line[-1], ())) == 1:
            line.append(children[line[-1]][0])
        below = children.get(line[-1], [])
        lines.append(f"{'  ' * level}{_line(nodes, line)}")
        if level + 1 >= depth and below:
            lines[-1] += f"  (+ {counted(len(below), 'child', 'children')})"
        else:
            waiting += [(child, level + 1) for child in reversed(below)]
    return lines


def _line(nodes: Sequence[Node], line: Sequence[int]) -> str:
    """A state, or a line of only children by its first and its last."""
    node = nodes[line[-1]]
    name = f"{line[0]}" if len(line) == 1 else f"{line[0]} … {line[-1]} ({len(line)} steps)"
    parts = [name, Status(node.status).name.lower()]
    parts += [f"{by} {score:.3g}" for by, score in node.scores.items() if score == score]
    parts += [f"fused of {len(node.parents)}"] if len(node.parents) > 1 else []
    if node.error is not None:
        parts.append(clipped(node.error, WIDE))
    elif node.text is not None:
        answer = "" if node.answer is None or len(node.answer) > 30 else f"{clipped(node.answer, 30)} ← "
        parts.append(answer + clipped(node.text, WIDE))
    return "  ".join(printable(part) for part in parts)


def _conclusion(story: Story, nodes: list[Node]) -> list[str]:
    if story.end is not None:
        text = [] if story.end["text"] is None else [f"Answer: {clipped(story.end['text'], 400)}"]
        return [*text, *end_lines(story.end)[: 1 + bool(story.end["note"])]]
    chosen = best(nodes)
    found = "Nothing has finished yet." if chosen is None else f"Best so far: {clipped(chosen.text or '', 400)}"
    return [found, f"To go on: anystep resume {story.path}"]


def _cost(cost: Cost) -> dict[str, Any]:
    return {**asdict(cost), "tokens": cost.tokens}


def _node_record(node: Node) -> dict[str, Any]:
    return {
        "parents": list(node.parents),
        "by": node.by,
        "status": Status(node.status).name.lower(),
        "logp": number(node.logp),
        "error": node.error,
        "answer": node.answer,
        "text": node.text,
        "scores": {by: number(score) for by, score in node.scores.items()},
    }
