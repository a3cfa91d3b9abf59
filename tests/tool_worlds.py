"""Small models with tools whose laws are known, for tests: a store of values, and a walk through a maze."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from anystep import Cost
from anystep.language.tools import Saying, Scripted, ToolProcess, asks, tool

PRICE = Cost(calls=1)  # so that a hook can count the calls that were really made


@tool(world=True, cost=PRICE)
def put(store: dict[str, int], key: str, value: int) -> Any:
    """Keep a value."""
    store[key] = value  # its own copy: nobody else's is touched
    return "kept", store


@tool(world=True, cost=PRICE)
def get(store: dict[str, int], key: str) -> Any:
    """Read a value."""
    return store[key], store


@tool(final=True, cost=PRICE)
def submit(answer: int) -> int:
    """Give the answer."""
    return answer


STORE = (put, get, submit)


def keeper(messages: Any) -> dict[Saying | str, float]:
    """Puts, gets and answers, with mistakes: an unknown key, a wrong type, an unknown tool, two calls at once."""
    said = [str(m["content"]) for m in messages if m["role"] == "tool"]
    if not said:
        return {
            asks("put", key="a", value=1): 0.4,
            asks("put", key="a", value=2) & asks("get", key="a"): 0.3,
            asks("put", key="a", value="one"): 0.2,
            "I would rather not.": 0.1,
        }
    if said[-1].startswith("Error"):
        return {asks("put", key="a", value=3): 0.5, asks("forget", key="a"): 0.25, "I give up.": 0.25}
    if said[-1] == "kept":
        return {asks("get", key="a"): 0.7, asks("get", key="b"): 0.3}
    return {asks("submit", answer=int(said[-1])): 0.6, said[-1]: 0.3, asks("submit", answer=0): 0.1}


def store(max_turns: int = 4, at_cap: Any = "failed", **options: Any) -> ToolProcess:
    return ToolProcess(Scripted(keeper), "Keep 1.", STORE, world={}, max_turns=max_turns, at_cap=at_cap, **options)


def paths(max_turns: int = 4) -> Iterator[tuple[float, str | None, dict[str, int]]]:
    """Every trajectory of `store`: its probability, its answer (None where it fails), and its world at the end.

    Written without the process: what the tools of a store do is said again here.
    """
    yield from _paths(1.0, [{"role": "user", "content": "Keep 1."}], {}, max_turns)


def _paths(p: float, messages: list[Mapping[str, Any]], world: dict[str, int], left: int) -> Iterator[Any]:
    if left == 0:
        yield p, None, world
        return
    for turn, q in keeper(messages).items():
        if isinstance(turn, str):
            yield p * q, turn, world
            continue
        asked = [(c.name, eval(c.arguments)) for c in turn.calls]
        if left == 1:  # at the cap a turn that asks for tools fails, and its calls are not made
            yield p * q, None, world
            continue
        after, said = dict(world), list(messages)
        for name, arguments in asked:
            said.append({"role": "tool", "content": _does(name, arguments, after)})
        if asked[-1][0] == "submit":
            yield p * q, str(asked[-1][1]["answer"]), after
        else:
            yield from _paths(p * q, said, after, left - 1)


def _does(name: str, arguments: dict[str, Any], world: dict[str, int]) -> str:
    if name == "put" and isinstance(arguments["value"], int):
        world[arguments["key"]] = arguments["value"]
        return "kept"
    if name == "get" and arguments["key"] in world:
        return str(world[arguments["key"]])
    return str(arguments["answer"]) if name == "submit" else "Error"


MAZE = ["#######", "#S.#.G#", "#..#.##", "##....#", "#######"]
STEPS = {"north": (-1, 0), "south": (1, 0), "west": (0, -1), "east": (0, 1)}
START, GOAL = (1, 1), (1, 5)


@tool(world=True)
def walk(at: tuple[int, int], to: str) -> Any:
    """Take one step, north, south, west or east. Walls stop you."""
    down, right = STEPS[to]
    there = (at[0] + down, at[1] + right)
    if MAZE[there[0]][there[1]] == "#":
        return "a wall", at
    return ("the goal" if there == GOAL else f"you are at {there}"), there


def walker(messages: Any) -> dict[Saying | str, float]:
    """Likes to go east, where the goal is, and so into the wall; says so when it has arrived."""
    if messages[-1]["content"] == "the goal":
        return {"I am there.": 1.0}
    return {asks("walk", to="east"): 0.4, **{asks("walk", to=to): 0.2 for to in ("north", "south", "west")}}


def maze(greedy: bool = False, max_turns: int = 12) -> ToolProcess:
    turns = Scripted(walker, greedy=greedy)
    return ToolProcess(
        turns, "Find the goal.", [walk], unit="exchange", world=START, max_turns=max_turns, at_cap="done"
    )


def distances() -> dict[tuple[int, int], int]:
    """Steps to the goal from everywhere in the maze."""
    found, edge = {GOAL: 0}, [GOAL]
    while edge:
        row, column = edge.pop(0)
        for down, right in STEPS.values():
            there = (row + down, column + right)
            if MAZE[there[0]][there[1]] != "#" and there not in found:
                found[there] = found[row, column] + 1
                edge.append(there)
    return found
